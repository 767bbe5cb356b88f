"""Costs of a recipe, from shapes alone: parameters, memory, floating-point operations.

Modules are built on torch's meta device, which knows shapes and holds no numbers; nothing is
fetched or allocated. Axes of the formulas: a medium has ``units`` of ``tokens`` each, the Q-Former
makes ``queries`` of every unit, ``text`` and ``answer`` are tokens of words.
"""
