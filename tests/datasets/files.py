"""Tiny files of every declared data set, in the formats in which they are published.

One case for each split: its annotation files, the media that are on disk, and what must come out:
``(id, question, answer, number of references)`` for each sample; for splits to learn from the
question is drawn, so it is None here.
"""

import csv
import io
import json
import pickle
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image


@dataclass(frozen=True)
class Case:
    name: str
    split: str
    files: dict
    media: list
    expected: list
    left_out: int = 0
    parts: list = field(default_factory=list)


def table(*rows, delimiter=","):
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter).writerows(rows)
    return stream.getvalue()


def clouds(count=3):
    """The two lists of ModelNet40: points with normals, and the numbers of their classes."""
    points = [np.full((16, 6), i, dtype=np.float32) for i in range(count)]
    return pickle.dumps([points, [np.array([i], dtype=np.int32) for i in range(count)]])


COCO = ["val2014/COCO_val2014_000000000001.jpg", "val2014/COCO_val2014_000000000002.jpg"]
SHORT = "a short description"
CAPTIONS = [{"image": COCO[0], "caption": ["A cat sleeps.", "A cat."]},
            {"image": COCO[1], "caption": ["A dog runs.", "Dogs!"]}]  # fmt: skip
COCO_SCORED = [(COCO[0], SHORT, "A cat sleeps.", 2), (COCO[1], SHORT, "A dog runs.", 2)]
COCO_MEDIA = [f"coco/images/{path}" for path in COCO]

VIDEO_CAPTIONS = [
    {"video": "video0.mp4", "caption": "A man sings.", "image_id": "video0"},
    {"video": "video1.mp4", "caption": "a car drives", "image_id": "video1"},
    {"video": "video0.mp4", "caption": "a singer", "image_id": "video0"},
]
VIDEO_SCORED = [
    ("video0.mp4", "a short description.", "A man sings.", 2),
    ("video1.mp4", "a short description.", "a car drives", 1),
]
VIDEO_QA = [
    {"video": "video0.mp4", "question": "What is he doing?", "answer": "sing", "question_id": 11},
    {"video": "video1.mp4", "question": "who drives", "answer": "man", "question_id": 12},
]
MSRVTT_MEDIA = ["msrvtt/videos/video0.mp4", "msrvtt/videos/video1.mp4"]

AUDIOCAPS = table(
    ["audiocap_id", "youtube_id", "start_time", "caption"],
    [1, "-aaa", 30, "A bell rings, twice"],
    [2, "bbb", 0, "Rain falls"],
    [3, "-aaa", 30, "Bells"],
)
AUDIOCAPS_SCORED = [
    ("-aaa", "a short description.", "A bell rings, twice", 2),
    ("bbb", "a short description.", "Rain falls", 1),
]
AUDIOCAPS_QA = table(
    ["youtube_id", "question", "answer", "caption"],
    ["-aaa", "What rings?", "a bell", "A bell rings"],
    ["bbb", "What falls?", "rain", "Rain falls"],
)
CLOTHO = table(
    ["file_name", *(f"caption_{i}" for i in range(1, 6))],
    ["Rain, heavy.wav", *(f"Rain falls {i}." for i in range(5))],
    ["b.wav", *(f"A door {i}." for i in range(5))],
)
CLOTHO_SCORED = [
    ("Rain, heavy.wav", "a short description.", "Rain falls 0.", 5),
    ("b.wav", "a short description.", "A door 0.", 5),
]
CLOTHO_LEARNT = [
    *((f"1-{i + 1}", None, f"rain falls {i}", 0) for i in range(5)),
    *((f"2-{i + 1}", None, f"a door {i}", 0) for i in range(5)),
]
AUDIOSET = """# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=22160, num_segs=22160, num_unique_labels=527, num_positive_labels=52882
# YTID, start_seconds, end_seconds, positive_labels
--4gqARaEJE, 0.000, 10.000, "/m/068hy"
-0BIyqJj9ZU, 30.000, 40.000, "/m/07rgt08"
"""
AUDIOSET_CLASSES = table(
    ["index", "mid", "display_name"],
    [0, "/m/068hy", "Engine"],
    [1, "/m/07rgt08", "Chuckle, chortle"],
)
ESC50 = table(
    ["filename", "fold", "target", "category", "esc10", "src_file", "take"],
    ["1-100032-A-0.wav", 1, 0, "dog", True, 100032, "A"],
    ["1-100038-A-14.wav", 1, 14, "chirping_birds", False, 100038, "A"],
)

FUSION = [
    {"source": "cc3m", "image_id": "000000001.jpg", "caption": "a bridge , seen from below"},
    {"source": "llava", "id": "33471", "image": "000000033471.jpg", "conversations": [
        {"from": "human", "value": "<image>\nWhat colour is\nthe bus?"},
        {"from": "gpt", "value": "White\nand red."}]},
    {"source": "cc3m", "image_id": "000000002.jpg", "caption": "Two boats!"},
]  # fmt: skip
DEPTH_CAPTIONS = {
    "data": [
        {"id": 0, "image_id": "7.jpg", "caption": "a bridge"},
        {"id": 1, "image_id": "8.jpg", "caption": "two boats"},
    ]
}
DEPTH_QUESTIONS = {
    "data": [
        {"image_id": "7.jpg", "question": "<image>\nWhere is it?", "caption": "In a town."},
        {"image_id": "8.jpg", "question": "How many?", "caption": "Two."},
    ],
    "info": {},
}
SCENES = ["kv1/a/image/1.jpg", "kv1/b/image/2.jpg"]
SCENE_MEDIA = [name for path in SCENES for name in (f"SUNRGBD/{path}", f"SUNRGBD/{path[:-3]}png")]

CAP3D = table(
    ["sample_id", "caption"], ["aa11", "A red chair, with arms."], ["bb22", 'a "big" house']
)
CAP3D_QA = table(
    ["sample_id", "question", "answer", "caption_no_color"],
    ["aa11", "What is it?", "a chair", "A chair."],
    ["bb22", "What is it?", "a 3d model of a house", "A house."],
    ["bb22", "How many floors?", "two", "A house."],
)
POINTS = ["objaverse/points/aa11_8192.npz", "objaverse/points/bb22_8192.npz"]

VQA_QUESTIONS = {
    "questions": [
        {"image_id": 1, "question": "What sport is it?", "question_id": 15},
        {"image_id": 2, "question": "Which animal?", "question_id": 25},
    ]
}
VQA_ANSWERS = {
    "info": {},
    "annotations": [
        {"image_id": i, "question_id": q, "answers": [{"answer_id": k, "answer": word}
                                                      for k in range(10)]}
        for i, q, word in ((1, 15, "tennis"), (2, 25, "dog"))
    ],
}  # fmt: skip
DISCRN = [
    {"sample_ids": ["aa11", "bb22"], "label": 0, "question": "Which object is red?",
     "properties": ["red", "big"], "captions": ["a red chair", "a big house"]},
    {"sample_ids": ["bb22", "aa11"], "label": 1, "question": "Which can be sat on?",
     "properties": ["big", "seat"], "captions": ["a big house", "a red chair"]},
]  # fmt: skip
DISCRN_SOUNDS = [
    {**row, "sample_ids": ids, "start_seconds": [30.0, 0.0]}
    for row, ids in zip(DISCRN, (["-aaa", "bbb"], ["ccc", "-aaa"]), strict=True)
]

CASES = [
    Case("coco_caption", "train",
         {"coco/annotations/coco_karpathy_train.json": [
             {"caption": "A cat: it sleeps.", "image": COCO[0], "image_id": "coco_1"},
             {"caption": "A (small) dog", "image": COCO[1], "image_id": "coco_2"}]},
         COCO_MEDIA, [("1", None, "a cat it sleeps", 0), ("2", None, "a small dog", 0)]),
    Case("coco_caption", "val", {"coco/annotations/coco_karpathy_val.json": CAPTIONS},
         COCO_MEDIA, COCO_SCORED),
    Case("coco_caption", "test", {"coco/annotations/coco_karpathy_test.json": CAPTIONS},
         COCO_MEDIA, COCO_SCORED),
    Case("nocaps", "val",
         {"nocaps/annotations/nocaps_val_4500_captions.json": {
             "licenses": [], "info": {"version": "0.2"},
             "images": [{"id": 0, "file_name": "0a.jpg", "domain": "out-domain"},
                        {"id": 1, "file_name": "1b.jpg", "domain": "in-domain"},
                        {"id": 2, "file_name": "2c.jpg", "domain": "out-domain"}],
             "annotations": [{"id": 5, "image_id": 0, "caption": "An ant."},
                             {"id": 6, "image_id": 1, "caption": "A cat."},
                             {"id": 7, "image_id": 2, "caption": "A kiwi."},
                             {"id": 8, "image_id": 0, "caption": "Ants."}]}},
         ["nocaps/val/0a.jpg", "nocaps/val/2c.jpg"],
         [("0", SHORT, "An ant.", 2), ("2", SHORT, "A kiwi.", 1)]),
    Case("flickr30k", "test",
         {"flickr30k/annotations/test.json": [
             {"image": "flickr30k-images/1007129816.jpg", "caption": ["A hat.", "The hat."]},
             {"image": "flickr30k-images/2.jpg", "caption": ["A bus."]}]},
         ["flickr30k/images/flickr30k-images/1007129816.jpg", "flickr30k/flickr30k-images/2.jpg"],
         [("flickr30k-images/1007129816.jpg", SHORT, "A hat.", 2),
          ("flickr30k-images/2.jpg", SHORT, "A bus.", 1)]),
    Case("gqa", "testdev",
         {"gqa/annotations/testdev_balanced_questions.json": {
             "201307251": {"imageId": "n161313", "question": "Is it overcast?", "answer": "no",
                           "fullAnswer": "No, it is clear.", "isBalanced": True},
             "201640614": {"imageId": "n235859", "question": "Who wears the dress?",
                           "answer": "woman"}}},
         ["gqa/images/n161313.jpg", "gqa/images/n235859.jpg"],
         [("201307251", "based on the given image respond to is it overcast?", "no", 1),
          ("201640614", "based on the given image respond to who wears the dress?", "woman", 1)]),
    Case("okvqa", "val",
         {"okvqa/annotations/mscoco_val2014_annotations.json": VQA_ANSWERS,
          "okvqa/annotations/OpenEnded_mscoco_val2014_questions.json": VQA_QUESTIONS},
         COCO_MEDIA,
         [("15", "based on the given image respond to what sport is it?", "tennis", 10),
          ("25", "based on the given image respond to which animal?", "dog", 10)]),
    Case("vizwiz", "val",
         {"vizwiz/annotations/val.json": [
             {"image": "VizWiz_val_00000000.jpg", "question": "Ok. What's in this can?",
              "answers": [{"answer": "beans", "answer_confidence": "yes"}] * 10,
              "answer_type": "other", "answerable": 1},
             {"image": "VizWiz_val_00000001.jpg", "question": "Colour?",
              "answers": [{"answer": "unanswerable", "answer_confidence": "yes"}] * 10}]},
         ["vizwiz/val/VizWiz_val_00000000.jpg", "vizwiz/val/VizWiz_val_00000001.jpg"],
         [("VizWiz_val_00000000.jpg",
           "based on the given image respond to ok what's in this can?", "beans", 10),
          ("VizWiz_val_00000001.jpg", "based on the given image respond to colour?",
           "unanswerable", 10)]),
    Case("msrvtt_caption", "train", {"msrvtt/annotations/cap_train.json": VIDEO_CAPTIONS},
         MSRVTT_MEDIA, [("1", None, "a man sings", 0), ("2", None, "a car drives", 0),
                        ("3", None, "a singer", 0)]),
    Case("msrvtt_caption", "val", {"msrvtt/annotations/cap_val.json": VIDEO_CAPTIONS},
         MSRVTT_MEDIA, VIDEO_SCORED),
    Case("msrvtt_caption", "test", {"msrvtt/annotations/cap_test.json": VIDEO_CAPTIONS},
         ["msrvtt/TestVideo/video0.mp4", "msrvtt/TestVideo/video1.mp4"], VIDEO_SCORED),
    *(Case("msrvtt_qa", split, {f"msrvtt/annotations/qa_{split}.json": VIDEO_QA}, MSRVTT_MEDIA,
           [("11", "based on the given video respond to what is he doing?", "sing", 1),
            ("12", "based on the given video respond to who drives", "man", 1)])
      for split in ("val", "test")),
    Case("msrvtt_qa", "train", {"msrvtt/annotations/qa_train.json": VIDEO_QA}, MSRVTT_MEDIA,
         [("1", None, "sing", 0), ("2", None, "man", 0)]),
    Case("msvd_caption", "test",
         {"msvd/annotations/cap_test.json": [
             {"video": "-4wsuPCjDBc_5_15.avi", "caption": "a squirrel eats", "image_id": "a"},
             {"video": "-4wsuPCjDBc_5_15.avi", "caption": "it eats nuts", "image_id": "a"}]},
         ["msvd/YouTubeClips/-4wsuPCjDBc_5_15.avi"],
         [("-4wsuPCjDBc_5_15.avi", "a short description.", "a squirrel eats", 2)]),
    Case("msvd_qa", "test",
         {"msvd/annotations/qa_test.json": [
             {"video": "-4wsuPCjDBc_5_15.avi", "question": "what eats?", "answer": "squirrel",
              "question_id": "qa1"}]},
         ["msvd/videos/-4wsuPCjDBc_5_15.avi"],
         [("qa1", "Question: what eats? Answer:", "squirrel", 1)]),
    Case("audiocaps_caption", "train", {"audiocaps/annotations/train.csv": AUDIOCAPS},
         ["audiocaps/audio/train/-aaa.wav", "audiocaps/audio/train/bbb_0.flac"],
         [("1", None, "a bell rings, twice", 0), ("2", None, "rain falls", 0),
          ("3", None, "bells", 0)]),
    *(Case("audiocaps_caption", split, {f"audiocaps/annotations/{split}.csv": AUDIOCAPS},
           [f"audiocaps/audio/{split}/-aaa_30.wav", f"audiocaps/audio/{split}/bbb.flac"],
           AUDIOCAPS_SCORED)
      for split in ("val", "test")),
    Case("audiocaps_qa", "train", {"audiocaps_qa/annotations/train.csv": AUDIOCAPS_QA},
         ["audiocaps/audio/train/-aaa.wav", "audiocaps/audio/train/bbb.wav"],
         [("1", None, "a bell", 0), ("2", None, "rain", 0)]),
    Case("audiocaps_qa", "val", {"audiocaps_qa/annotations/val.csv": AUDIOCAPS_QA},
         ["audiocaps/audio/val/-aaa.wav", "audiocaps/audio/val/bbb.wav"],
         [("-aaa: 1", "Question: what rings? Answer:", "a bell", 1),
          ("bbb: 2", "Question: what falls? Answer:", "rain", 1)]),
    Case("wavcaps", "train",
         {f"wavcaps/json_files/{folder}/{file}_final.json": {
             "num_captions_per_audio": 1,
             "data": [{"id": name, "caption": f"Sound of {folder}.", "audio": "wav_path",
                       "duration": 9.5, "download_link": "http://a/b"}]}
          for folder, file, name in (("AudioSet_SL", "as", "Yb0RFKhbpFJA.wav"),
                                     ("BBC_Sound_Effects", "bbc", "NHU05093027"),
                                     ("FreeSound", "fsd", "180913"), ("SoundBible", "sb", "2219"))},
         ["wavcaps/AudioSet_SL_flac/Yb0RFKhbpFJA.flac", "wavcaps/FreeSound_flac/180913.flac",
          "wavcaps/BBC_Sound_Effects_flac/NHU05093027.flac", "wavcaps/SoundBible/2219.flac"],
         [("1", None, "sound of audioset_sl", 0), ("2", None, "sound of bbc_sound_effects", 0),
          ("3", None, "sound of freesound", 0), ("4", None, "sound of soundbible", 0)]),
    Case("wavcaps", "merged",
         {"wavcaps/json_data.json": [
             {"id": "2219", "caption": "An airplane is landing.", "duration": 14.1,
              "audio_path": "/export/share/audio/WavCaps/SoundBible_flac/2219.flac"}]},
         ["wavcaps/SoundBible_flac/2219.flac"], [("1", None, "an airplane is landing", 0)]),
    *(Case("audioset", split,
           {f"audioset/annotations/{file}.csv": AUDIOSET,
            "audioset/annotations/class_labels_indices.csv": AUDIOSET_CLASSES},
           ["audioset/audio/--4gqARaEJE_0.0.wav", "audioset/audio/-0BIyqJj9ZU_30.0-40.0.wav"],
           [("1", None, "an engine", 0), ("2", None, "a chuckle, chortle", 0)])
      for split, file in (("train", "balanced_train_segments"), ("clean", "balanced_train_clean"))),
    *(Case(name, split, {f"{name}/clotho_captions_{split}.csv": CLOTHO},
           [f"{name}/{split}/Rain, heavy.wav", f"{name}/{split}/b.wav"],
           CLOTHO_LEARNT if split == "development" else CLOTHO_SCORED)
      for name, split in (("clotho_v1", "development"), ("clotho_v1", "evaluation"),
                          ("clotho_v2", "development"), ("clotho_v2", "validation"),
                          ("clotho_v2", "evaluation"))),
    Case("clotho_aqa", "test",
         {"clotho_aqa/annotations/clotho_aqa_test.csv": table(
             ["file_name", "QuestionText", "answer", "confidence"],
             *(["a.wav", "What barks?", "dog", "yes"] for _ in range(3)),
             *(["a.wav", "Is it loud?", word, "yes"] for word in ("yes", "no", "yes")),
             *(["b.wav", "Where is it?", word, "maybe"] for word in ("park", "park", "street")))},
         ["clotho_aqa/audio_files/a.wav", "clotho_aqa/audio_files/b.wav"],
         [("a.wav: What barks?", "Question: what barks? Answer:", "dog", 3)], left_out=2),
    Case("esc50", "all", {"esc50/meta/esc50.csv": ESC50},
         ["esc50/audio/1-100032-A-0.wav", "esc50/audio/1-100038-A-14.wav"],
         [("1-100032-A-0.wav", "describe the audio.", "an audio of dog", 1),
          ("1-100038-A-14.wav", "describe the audio.", "an audio of chirping birds", 1)]),
    Case("cc3m_depth", "train", {"depth/fusion_train_55w_clear.json": FUSION},
         ["CC3M/train/000000001.jpg", "CC3M_Depth/train/000000001.png",
          "CC3M/train/000000002.jpg", "CC3M_Depth/train/000000002.png"],
         [("1", None, "a bridge , seen from below", 0), ("3", None, "two boats", 0)]),
    Case("cc3m_depth", "val", {"CC3M_Split/CC3M_val_1_5k_coco.json": DEPTH_CAPTIONS},
         ["CC3M/val/7.jpg", "CC3M_Depth/val/7.png", "CC3M/val/8.jpg", "CC3M_Depth/val/8.png"],
         [("7.jpg", "describe the depth.", "a bridge", 1),
          ("8.jpg", "describe the depth.", "two boats", 1)]),
    Case("llava_depth", "train", {"depth/fusion_train_55w_clear.json": FUSION},
         ["coco/train2017/000000033471.jpg", "LLaVA_Depth/train/000000033471.png"],
         [("2", None, "White and red.", 0)]),
    Case("llava_depth", "val",
         {"LLaVA_Split/llava_instruct_1dot5k_test_data_coco.json": DEPTH_QUESTIONS},
         [f"{folder}/val/{name}" for number in "78" for folder, name in (
             ("LLaVA_Split", f"{number}.jpg"), ("LLaVA_Depth", f"{number}.png"))],
         [("7.jpg: 1", "where is it?", "In a town.", 1), ("8.jpg: 2", "how many?", "Two.", 1)]),
    Case("nyu_v2", "val",
         {"SUNRGBD/NYU-Depth-v2_val.json": [{"image_path": SCENES[0], "label": "study"},
                                            {"image_path": SCENES[1], "label": "kitchen"}]},
         SCENE_MEDIA, [(SCENES[0], "describe the depth.", "others", 1),
                       (SCENES[1], "describe the depth.", "kitchen", 1)]),
    Case("sun_rgbd", "val",
         {"SUNRGBD/SUN-RGBD_val.json": [{"image_path": SCENES[0], "label": "study_space"},
                                        {"image_path": SCENES[1], "label": "lecture_theatre"}]},
         SCENE_MEDIA, [(SCENES[0], "describe the depth.", "study_space", 1),
                       (SCENES[1], "describe the depth.", "lecture_theatre", 1)]),
    Case("cap3d_caption", "train", {"objaverse/annotations/train.csv": CAP3D}, POINTS,
         [("1", None, "a red chair, with arms", 0), ("2", None, "a big house", 0)]),
    Case("cap3d_caption", "val", {"objaverse/annotations/val.csv": CAP3D},
         ["objaverse/points/aa11/aa11_8192.npz", "objaverse/points/bb22/bb22_8192.npz"],
         [("aa11", "describe the 3d model.", "A red chair, with arms.", 1),
          ("bb22", "describe the 3d model.", 'a "big" house', 1)]),
    Case("cap3d_qa", "train", {"objaverse_qa/annotations/train.csv": CAP3D_QA}, POINTS,
         [("1", None, "a chair", 0), ("3", None, "two", 0)], left_out=1),
    Case("cap3d_qa", "val", {"objaverse_qa/annotations/val.csv": CAP3D_QA}, POINTS,
         [("aa11: 1", "based on the given input respond to what is it?.", "a chair", 1),
          ("bb22: 3", "based on the given input respond to how many floors?.", "two", 1)],
         left_out=1),
    Case("modelnet40", "test",
         {"modelnet40_normal_resampled/modelnet40_test_8192pts_fps.dat": clouds(),
          "modelnet40_normal_resampled/modelnet40_shape_names.txt": "airplane\nbathtub\nbed\n",
          "modelnet40_normal_resampled/modelnet40_test.txt":
              "airplane_0627\nbathtub_0107\nbed_0516\n"},
         [], [("airplane_0627", "describe the 3d model.", "a 3d model of a airplane.", 1),
              ("bathtub_0107", "describe the 3d model.", "a 3d model of a bathtub.", 1),
              ("bed_0516", "describe the 3d model.", "a 3d model of a bed.", 1)]),
    Case("discrn_image_3d", "val", {"discrn/annotations/objaverse.json": DISCRN},
         ["objaverse/images/aa11_2.jpeg", "objaverse/images/bb22_2.jpeg", *POINTS],
         [("1", "question: which object is red? answer:", "the first", 14),
          ("2", "question: which can be sat on? answer:", "the second", 14)]),
    Case("discrn_audio_video", "val", {"discrn/annotations/audiocaps.json": DISCRN_SOUNDS},
         ["audiocaps/video/val/-aaa_30.mp4", "audiocaps/video/val/ccc_30.mp4",
          "audiocaps/audio/val/bbb_0.flac", "audiocaps/audio/val/-aaa.wav"],
         [("1", "question: which object is red? answer:", "the first", 14),
          ("2", "question: which can be sat on? answer:", "the second", 14)]),
]  # fmt: skip


def write(root: Path, path: str, content) -> Path:
    """Write a file as text, bytes or JSON."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        file.write_text(
            content if isinstance(content, str) else json.dumps(content), encoding="utf-8"
        )
    return file


def write_case(root: Path, case: Case) -> Path:
    """Write the annotation files and the media of a case."""
    for path, content in case.files.items():
        write(root, path, content)
    for path in case.media:
        write(root, path, medium(Path(path).suffix))
    return root


@cache
def medium(ending: str) -> bytes:
    """The bytes of the smallest medium of a kind; of moving pictures only the beginning."""
    stream = io.BytesIO()
    if ending in (".jpg", ".jpeg", ".png"):
        Image.new("RGB", (4, 4), "red").save(stream, "PNG" if ending == ".png" else "JPEG")
    elif ending in (".wav", ".flac"):
        soundfile.write(stream, np.zeros(80), 8000, format=ending[1:].upper())
    elif ending == ".npz":
        np.savez(stream, np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32))
    elif ending == ".mp4":
        stream.write(b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom")
    elif ending == ".avi":
        stream.write(b"RIFF\x10\0\0\0AVI LIST\0\0\0\0hdrl")
    return stream.getvalue()
