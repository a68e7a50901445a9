"""Turns original data sets into the formats of this project (DATA.md describes both), and checks the results.

    python -m models.training.prepare_data ferplus --fer2013 fer2013.csv --ferplus fer2013new.csv --out DIR
    python -m models.training.prepare_data ravdess-speech --originals Audio_Speech_Actors_01-24.zip --out DIR
    python -m models.training.prepare_data ravdess-clips --originals Video_Speech_Actor_01.zip --out DIR
    python -m models.training.prepare_data nemo --originals FOLDER_OR_ZIP --out DIR
    python -m models.training.prepare_data speech --corpus javanese --originals FOLDER_OR_ZIP --out DIR
    python -m models.training.prepare_data grid --originals FOLDER --out DIR
    python -m models.training.prepare_data circumplex --out DIR
    python -m models.training.prepare_data check --out DIR

--out is the data folder that all other scripts take as --data. Needs ffmpeg with libopus, numpy and pillow.

Each command compares its result with the copy that the shipped models were trained on, by SHA-256, where the result is
deterministic: tables and copied clips by their bytes, atlases by their pixels (PNG bytes depend on the zlib version), tars and
folders of encoded files by the names of their members (encoded bytes depend on the ffmpeg version). A difference ends in exit
code 1, after the result is written. `--no-check` omits the comparison, for other data in the same format.
"""

import contextlib
import csv
import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from . import arguments
from .arguments import BadInput
from .data.corpus_names import ARCHIVES, describe_recording
from .data.face_atlas import ACROSS, SIZE
from .labels import CIRCUMPLEX, EXPRESSIONS, describe

VOTES = [*EXPRESSIONS, "unknown", "NF"]
FERPLUS_SPLITS = {"Training": "train", "PublicTest": "valid"}  # the third one, PrivateTest, is not used
OPUS_BITRATE = "24k"
FURTHER_CORPORA = [corpus for corpus in ARCHIVES if corpus not in ("ravdess", "nemo")]

# SHA-256 of the copies that the shipped models were trained on: of the content that `fingerprint` selects.
EXPECTED = {
    "circumplex.csv": "f017dbf6fb731e60d4539f0314b056b1f8c24f666f73acff31b58c497bf9eb33",
    "faces/ferplus_train.csv": "92c0cd931140eab2b7fd079f293f17e86bbf585923d5a677948a908d6f9abeab",
    "faces/ferplus_train.png": "8133e31806aa135b592ef29b09511294dca0ac4c85bf6b91513e0f521d96d4cf",
    "faces/ferplus_valid.csv": "ac119aadf6284ecfac5f5e8b430468c63a308c4a9c3036be4135fb7162a96ac1",
    "faces/ferplus_valid.png": "79ecda48ea5d25cda4aef4b4a9fdff6ea6ca59289122980888f2cc18679988b1",
    "speech/ravdess.tar": "b966eb06d8e2f471aafcab9964d7b150ca719ac4812df3c605b32163d0daca13",
    "speech/nemo.tar": "23f8062a436ebdc3f02c0454fa6c6fb1b6b2a079077965c64e92b19afe7e5c18",
    "speech/nemo.tsv": "c4919594a62fee0dcd70066ace7bddfb92dc567321fe6ba37ea53f6008f3d828",
    "av/actor01_kids": "7c0bbaeb2e26dc4e2b254839feb3ccd378e8e5aed76c29aa36da473ac51cc0a6",
    "speech/javanese.tar": "5b118190d13825c644dbfd2bef82fe07cd044e0c2b1cd1e07bd4e29873ded29b",
    "speech/ased.tar": "9276fd235fbc79458ffe06c36d719531b33e47c746f56ff738bb88dddd34eabd",
    "speech/emotiontts.tar": "0b426abc8f006bef14a97a55105c444fb041a9fef6d5115bd349b943fbe92c78",
    "speech/baved.tar": "176f781e42a79a8d7d5bfee5a87baeb90ef8d31d16efa64eb1a8fa04b24ee927",
    "speech/emogator.tar": "3c02b00e2c22df77b1ee7605f52618d53774100aa8d55edf4c6d29763c567efe",
    "av/javanese_av.tar": "e49dbe365a3c9bd5d4bc2ddd72d9d3ec378f5cae50de17ef5ba6e056f905384d",
    "av/ravdess_stills": "4f4fc21f98b5aa9dc0b881e32bd9a5872d4346d179b87b339fa70fbea635a14a",
    "faces/muxspace_faces64.csv": "f132f086f7f4139d94c19fc5460fd34be4284e3f561349abe5ce6012d06589b5",
    "faces/muxspace_faces64.jpg": "9441dd0fc5a9088766c9555370d7cda738f61f6b64d0698c17b937280fc24bd3",
    "faces/ffhq64.csv": "cc4b5d6705fe511c094c1b13aa17a3a9b9f033ec130643b62db0e7e10590e814",
    "faces/ffhq64.jpg": "f3c5b0579baab73f22c235fd71ac83a6a98676de8bcce9758a9c18356ee6cb3e",
    "teachers/affectnet_expr_mobilenetv3_large_075.tflite": "b693af57fa505ce39cb533c10d6297f561119123abaf6340de0499a335079dfc",
    "teachers/affectnet_expr_squeezenet.tflite": "a2db448bd3d6d245968b514ef4b5ba155daa67175cf28f0977f93dfcace1ecb0",
    "teachers/affectnet_va_shufflenet_128.tflite": "63973cde787890755343a0189815831630d70c2b8dbcc5b954765e83b75b0b7c",
    "teachers/affectnet_va_shufflenet_200.tflite": "fb27a349314a69ad546c94e17b013b2239124688a2298eaa7aa0506b71beb164",
    "clips/grid_bbaf2n.mpg": "e468120039e208b5ff9b9e269f8dc96bbddc45701f8dddcf2c0ae21abc0df546",
    "clips/grid_brbk7n.mpg": "2122707c6dd3b59a32b5272870afb37397dc6b20cf52241cf8ff7cfda7b3efa3",
    "clips/grid_id2_vcd_swwp2s.mpg": "3bb8cffd51399caaf0c97abcd32bcab3493b2878ffda73bd648490ea47c75cc0",
    "clips/grid_lbax4n.mpg": "8f80c8ced6a8cb47d55c5c01704d4669b410369af653f6be7fbda9003337dedf",
    "clips/grid_lbbc2a.mpg": "9447e5e0732eeaf4444b5ba1e3412c8a9e194975ba7c814fa64c4c41c83d4e4c",
    "clips/grid_lrwp9a.mpg": "1a6c86fc5e7d4e9ee66a891f188f9a648c9b8be3bdc2431d73ac7e533aa70b3f",
    "clips/grid_lwbsza.mpg": "09090d1f7a8a946233a015a1b4258fafcb790ed6dbbd884ed88ae51fe36841a0",
    "clips/grid_pwij3p.mpg": "a610d98c101dde3587cc66d70cb569d3b1d0111cfad90bd0037e47e21316beda",
    "clips/grid_sbia1a.mpg": "768e49272122f1577839db576ea00146d08e83d778c7fe8b9ca1b194dff57c7d",
    "clips/grid_sbwe5n.mpg": "6707e709f1d713a6ff6673c85605e2fa721cfe59749c56b9f34e6d159c5fdf55",
    "clips/grid_swiz3n.mpg": "080f3e1511879a3baa41cdc31aa7029981f29c71434a570de3d52ee78f9e5dd0",
}


# ---- checks ---------------------------------------------------------------------------------------------------------


def fingerprint(path):
    """SHA-256 of the deterministic content of a result: pixels of an atlas, member names of a tar or folder, or file bytes."""
    if path.is_dir():
        content = "\n".join(sorted(p.name for p in path.iterdir())).encode()
    elif path.suffix == ".png":
        with Image.open(path) as image:
            content = np.asarray(image.convert("L")).tobytes()
    elif path.suffix == ".tar":
        with tarfile.open(path) as tar:
            content = "\n".join(sorted(tar.getnames())).encode()
    else:
        content = path.read_bytes()
    return hashlib.sha256(content).hexdigest()


def check(out, names):
    """Compare results in the data folder `out` with EXPECTED and print one line each; returns whether none differs."""
    Image.MAX_IMAGE_PIXELS = None  # an atlas has more pixels than Pillow allows by default
    equal = True
    for name in names:
        path = out / name
        if not path.exists():
            print(f"{name}: missing")
        elif fingerprint(path) == EXPECTED[name]:
            print(f"{name}: equal to the copy that the shipped models were trained on")
        else:
            print(f"{name}: differs from the copy that the shipped models were trained on")
            equal = False
    return equal


# ---- originals ------------------------------------------------------------------------------------------------------


def open_originals(path, suffix):
    """{file name: function that returns its bytes} of the files with this suffix in a folder or zip, at any depth."""
    if path.is_dir():
        found = {p.name: p.read_bytes for p in sorted(path.rglob(f"*{suffix}"))}
    else:
        try:
            archive = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise BadInput(
                f"{path}: neither a folder nor a zip ({getattr(error, 'strerror', None) or error})"
            ) from None
        members = sorted(name for name in archive.namelist() if name.endswith(suffix) and Path(name).name[0] != ".")
        found = {Path(name).name: lambda name=name: archive.read(name) for name in members}
    if not found:
        raise BadInput(f"{path}: no files *{suffix}: --originals names the files as their owners distribute them")
    return found


def ffmpeg(*options, content=None):
    """Run ffmpeg; `content` goes to its standard input."""
    command = ["ffmpeg", "-v", "error", "-y", *map(str, options)]
    try:
        done = subprocess.run(command, input=content, check=False, capture_output=True)
    except FileNotFoundError:
        raise BadInput("ffmpeg: not installed: apt-get install ffmpeg") from None
    if done.returncode != 0:
        raise BadInput(f"ffmpeg: {done.stderr.decode(errors='replace').strip().splitlines()[-1]}")


def write_opus_tar(recordings, tar_path):
    """Encode recordings {file name: function that returns bytes} as 16 kHz mono Opus and write NAME.opus into a tar."""
    tar_path.parent.mkdir(parents=True, exist_ok=True)
    partial = tar_path.with_suffix(".part")
    with tempfile.TemporaryDirectory() as folder, tarfile.open(partial, "w") as tar:
        for name, read in sorted(recordings.items()):
            encoded = Path(folder) / f"{Path(name).stem}.opus"
            sound = ("-i", "pipe:0", "-map_metadata", "-1", "-ac", "1", "-ar", "16000")
            ffmpeg(*sound, "-c:a", "libopus", "-b:a", OPUS_BITRATE, encoded, content=read())
            member = tarfile.TarInfo(encoded.name)
            member.size = encoded.stat().st_size
            tar.addfile(member, io.BytesIO(encoded.read_bytes()))
            encoded.unlink()
    partial.replace(tar_path)
    print(f"{tar_path}: {len(recordings)} recordings")


# ---- one function for each data set: (options) -> names of the results --------------------------------------------------


def ferplus(options):
    """fer2013.csv (emotion, pixels, Usage) and fer2013new.csv (Usage, Image name, votes) -> two atlases with tables.

    Both tables have the same rows in the same order. FER+ has no image name for faces that it removed.
    """
    faces, rows = {name: [] for name in FERPLUS_SPLITS.values()}, {name: [] for name in FERPLUS_SPLITS.values()}
    for line, image, votes in paired_rows(options.fer2013, options.ferplus):
        if image["usage"] != votes["usage"]:
            raise BadInput(
                f"{options.ferplus}: line {line} is of {votes['usage']}, {options.fer2013} of {image['usage']}"
            )
        split = FERPLUS_SPLITS.get(votes["usage"])
        if split is None or not votes["image name"]:
            continue
        pixels = np.array(image["pixels"].split(), np.uint8)
        if pixels.size != SIZE * SIZE:
            raise BadInput(f"{options.fer2013}: line {line}: {pixels.size} pixels, expected {SIZE * SIZE}")
        rows[split].append([len(rows[split]), votes["image name"], *(int(votes[name.lower()]) for name in VOTES)])
        faces[split].append(pixels.reshape(SIZE, SIZE))
    folder = options.out / "faces"
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for split, cells in faces.items():
        if not cells:
            raise BadInput(f"{options.ferplus}: no faces of the split {split}")
        Image.fromarray(make_atlas(np.stack(cells))).save(folder / f"ferplus_{split}.png", optimize=True)
        with open(folder / f"ferplus_{split}.csv", "w", newline="") as file:
            csv.writer(file).writerows([["index", "image", *VOTES], *rows[split]])
        print(f"{folder}/ferplus_{split}: {len(cells)} faces")
        names += [f"faces/ferplus_{split}.csv", f"faces/ferplus_{split}.png"]
    return names


def paired_rows(first, second):
    """Yields (line number, row of the first table, row of the second); rows are {column in lower case: text}."""
    with contextlib.ExitStack() as stack:
        readers = []
        for path in (first, second):
            try:
                file = stack.enter_context(open(path, newline="", encoding="utf-8-sig"))
            except OSError as error:
                raise BadInput(f"{path}: {error.strerror}") from None
            readers.append(csv.reader(file))
        headers = [[name.strip().lower() for name in next(reader, [])] for reader in readers]
        wanted = ({"pixels", "usage"}, {"usage", "image name", *(name.lower() for name in VOTES)})
        for path, header, columns in zip((first, second), headers, wanted, strict=True):
            if columns - set(header):
                raise BadInput(f"{path}: no column {', '.join(sorted(columns - set(header)))}")
        try:
            for line, rows in enumerate(zip(*readers, strict=True), 2):
                yield line, *(dict(zip(header, row, strict=True)) for header, row in zip(headers, rows, strict=True))
        except ValueError:
            raise BadInput(f"{first}, {second}: the tables have different numbers of rows or columns") from None


def make_atlas(cells):
    """Faces u8 [n, 48, 48] -> an atlas with 100 faces a row, black where there is none."""
    down = -(-len(cells) // ACROSS)
    atlas = np.zeros((down * ACROSS, SIZE, SIZE), np.uint8)
    atlas[: len(cells)] = cells
    return atlas.reshape(down, ACROSS, SIZE, SIZE).swapaxes(1, 2).reshape(down * SIZE, ACROSS * SIZE)


def ravdess_speech(options):
    """The speech recordings of RAVDESS, 48 kHz wav -> speech/ravdess.tar without actor 01, whose clips measure the chain."""
    recordings = {
        name: read
        for name, read in open_originals(options.originals, ".wav").items()
        if name.startswith("03-01-") and describe(name) and describe(name)[1] != "01"
    }
    if not recordings:
        raise BadInput(f"{options.originals}: no speech recordings 03-01-*.wav of actors 02 to 24")
    write_opus_tar(recordings, options.out / "speech" / "ravdess.tar")
    return ["speech/ravdess.tar"]


def ravdess_clips(options):
    """The clips of RAVDESS actor 01 with the statement "kids", 720p mp4 -> av/actor01_kids/, 640x480 MJPEG and PCM.

    01-... has sound, 02-... has none.
    """
    folder = options.out / "av" / "actor01_kids"
    folder.mkdir(parents=True, exist_ok=True)
    fit = "scale=640:480:force_original_aspect_ratio=decrease,pad=640:480:-1:-1,format=gray,format=yuvj422p"
    count = 0
    for name, read in open_originals(options.originals, ".mp4").items():
        parts = Path(name).stem.split("-")
        if len(parts) != 7 or parts[0] not in ("01", "02") or (parts[1], parts[4], parts[6]) != ("01", "01", "01"):
            continue
        with tempfile.NamedTemporaryFile(suffix=".mp4") as original:  # mp4 cannot be read from a pipe
            original.write(read())
            original.flush()
            sound = ("-c:a", "pcm_s16le", "-ar", "16000", "-ac", "1") if parts[0] == "01" else ("-an",)
            video = ("-vf", fit, "-c:v", "mjpeg", "-q:v", "3")
            ffmpeg("-i", original.name, *video, *sound, folder / f"{Path(name).stem}.mkv")
        count += 1
    if count == 0:
        raise BadInput(f"{options.originals}: no clips of actor 01 with statement 01 (01-01-*-*-01-*-01.mp4)")
    print(f"{folder}: {count} clips")
    return ["av/actor01_kids"]


def nemo(options):
    """The wav files of nEMO and its table data.tsv -> speech/nemo.tar and speech/nemo.tsv."""
    recordings = {n: read for n, read in open_originals(options.originals, ".wav").items() if describe(n)}
    if not recordings:
        raise BadInput(f"{options.originals}: no recordings with nEMO names (SPEAKER_EMOTION_SENTENCE.wav)")
    (table, read_table), *others = open_originals(options.originals, ".tsv").items()
    if others:
        raise BadInput(f"{options.originals}: several tables ({table}, {others[0][0]}): expected data.tsv only")
    write_opus_tar(recordings, options.out / "speech" / "nemo.tar")
    (options.out / "speech" / "nemo.tsv").write_bytes(read_table())
    return ["speech/nemo.tar", "speech/nemo.tsv"]


def speech(options):
    """The recordings of one of FURTHER_CORPORA, wav or mp3 -> speech/CORPUS.tar. Files with other names are left out."""
    recordings = {}
    for suffix in (".wav", ".mp3"):
        with contextlib.suppress(BadInput):
            recordings |= open_originals(options.originals, suffix)
    named = {name: read for name, read in recordings.items() if is_recording(options.corpus, name)}
    if not named:
        raise BadInput(
            f"{options.originals}: no wav or mp3 files with names of {options.corpus} (data/corpus_names.py)"
        )
    archive = f"speech/{options.corpus}.tar"
    write_opus_tar(named, options.out / archive)
    if len(named) < len(recordings):
        print(f"{len(recordings) - len(named)} files with other names left out", file=sys.stderr)
    return [archive]


def is_recording(corpus, name):
    """Whether a file name is one of a corpus."""
    try:
        describe_recording(corpus, name)
    except ValueError:
        return False
    return True


def grid(options):
    """The GRID clips that this project uses, 360x288 mpg, copied to clips/grid_NAME.mpg.

    Sentence codes repeat between speakers, so a file is identified by its SHA-256. Where none matches, the first file with
    the right name is copied, and the check reports the difference.
    """
    names = [name for name in EXPECTED if name.startswith("clips/")]
    if not options.originals.is_dir():
        raise BadInput(f"{options.originals}: not a folder: unpack the videos of the GRID corpus there")
    by_hash, by_name = {}, {}
    for path in sorted(options.originals.rglob("*.mpg")):
        by_hash.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), path)
        by_name.setdefault(path.stem, path)
    (options.out / "clips").mkdir(parents=True, exist_ok=True)
    copied = []
    for name in names:
        sentence = Path(name).stem.split("_")[-1]
        original = by_hash.get(EXPECTED[name]) or by_name.get(sentence)
        if original is None:
            print(f"{name}: no original {sentence}.mpg in {options.originals}", file=sys.stderr)
            continue
        shutil.copyfile(original, options.out / name)
        copied.append(name)
    if not copied:
        raise BadInput(f"{options.originals}: none of the clips that this project uses")
    return copied


def circumplex(options):
    """The points of valence and arousal of this project -> circumplex.csv."""
    options.out.mkdir(parents=True, exist_ok=True)
    lines = [f"{emotion},{valence:.2f},{arousal:.2f}" for emotion, (valence, arousal) in CIRCUMPLEX.items()]
    (options.out / "circumplex.csv").write_text("\n".join(["emotion,valence,arousal", *lines]) + "\n")
    return ["circumplex.csv"]


def parse():
    parser = arguments.parser(__doc__)
    commands = parser.add_subparsers(required=True, dest="command")
    command = commands.add_parser("ferplus", help="FER2013 images and FER+ votes")
    command.add_argument("--fer2013", type=Path, required=True, metavar="CSV", help="fer2013.csv")
    command.add_argument("--ferplus", type=Path, required=True, metavar="CSV", help="fer2013new.csv")
    command.set_defaults(convert=ferplus)
    for name, convert, text in (
        ("ravdess-speech", ravdess_speech, "speech recordings of RAVDESS, a zip or a folder of wav files"),
        ("ravdess-clips", ravdess_clips, "videos of RAVDESS actor 01, a zip or a folder of mp4 files"),
        ("nemo", nemo, "nEMO, a zip or a folder with wav files and data.tsv"),
        ("grid", grid, "videos of the GRID corpus, a folder of mpg files"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("--originals", type=Path, required=True, help=text)
        command.set_defaults(convert=convert)
    command = commands.add_parser("speech", help="another speech corpus, a zip or a folder of wav or mp3 files")
    command.add_argument("--corpus", choices=FURTHER_CORPORA, required=True)
    command.add_argument("--originals", type=Path, required=True, help="a zip or a folder of wav or mp3 files")
    command.set_defaults(convert=speech)
    command = commands.add_parser("circumplex", help="the table of valence and arousal points")
    command.set_defaults(convert=circumplex)
    command = commands.add_parser("check", help="only check a data folder")
    command.set_defaults(convert=lambda _: list(EXPECTED), no_check=False)
    for name, command in commands.choices.items():
        command.add_argument("--out", type=Path, required=True, metavar="DIR", help="the data folder")
        if name != "check":
            command.add_argument("--no-check", action="store_true", help="do not compare with the project's own copies")
    return parser.parse_args()


def main():
    options = parse()
    names = options.convert(options)
    if not options.no_check and not check(options.out, names):
        sys.exit(1)


if __name__ == "__main__":
    arguments.run(main)
