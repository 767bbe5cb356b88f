"""Answers for many callers at once: engines, the HTTP server and its page."""
