"""Makes demo.mkv, the clip that ships with the models: ten seconds for a first run and for `affectd bench`.

    python -m models.training.make_demo_clip --out DIR

| seconds    | video                  | sound                  |
| ---------- | ---------------------- | ---------------------- |
|  0.0 - 3.5 | a face, moving slowly  | a voice                |
|  3.5 - 6.0 | the face               | a quiet room           |
|  6.0 - 8.5 | an empty, lit wall     | a voice                |
|  8.5 - 10  | the wall               | a quiet room           |

640x480 MJPEG at 15 frames a second and 16-bit PCM, 16 kHz, mono, in Matroska. The same versions of the tools write the same
bytes.

Needs espeak-ng and ffmpeg (apt-get install espeak-ng ffmpeg) and numpy, pillow, scikit-image, scipy.

Licence. Everything in the clip may be redistributed:
- The face is the portrait of the astronaut Eileen Collins, NASA, in the public domain ("no known copyright
  restrictions", https://flic.kr/p/r9qvLn), as shipped in the scikit-image wheel (skimage/data/astronaut.png).
- The voice is synthetic, spoken by espeak-ng. The sentences are this project's. The licence of espeak-ng (GPL-3.0-or-later)
  does not cover the speech that it produces.
- Wall and room noise are computed here.
The clip itself has the licence of the project, MIT OR Apache-2.0. It says nothing about the feelings of any person.
"""

import io
import math
import subprocess
import tempfile
import wave
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.signal import resample_poly
from skimage import data

from . import arguments

WIDTH, HEIGHT, FPS = 640, 480, 15
RATE_HZ = 16_000
SECONDS = 10.0
FACE_ENDS = 6.0

# Start in seconds, longest duration in seconds, text.
SENTENCES = [
    (0.1, 3.4, "Hello! This is a short test of the camera and microphone."),
    (6.1, 2.4, "Now you can hear me, but you cannot see me."),
]
VOICE = ["-v", "en-us", "-s", "180", "-p", "55"]

# The centre of the face in the 512x512 portrait, in its pixels.
FACE_CENTRE = (222.0, 118.0)

# The portrait is smaller than the frame at some scales: its edge is extended by this many of its pixels.
MARGIN = 300

# Standard deviation of the room noise relative to full scale: about -60 dB.
ROOM_NOISE = 0.001


def face(portrait: Image.Image, t: float) -> Image.Image:
    """The frame with the portrait at time `t` in seconds: scaled, rotated and moved around its face."""
    scale = 1.55 + 0.25 * math.sin(2 * math.pi * t / 8.0)
    tilt = math.radians(5.0 * math.sin(2 * math.pi * t / 5.0))
    # The centre of the face in the frame, in pixels.
    x = WIDTH / 2 + 60 * math.sin(2 * math.pi * t / 6.0)
    y = HEIGHT * 0.42 + 12 * math.sin(2 * math.pi * t / 3.5)
    c, s = math.cos(tilt) / scale, math.sin(tilt) / scale
    cx, cy = FACE_CENTRE[0] + MARGIN, FACE_CENTRE[1] + MARGIN
    # Pillow needs the inverse: from pixels of the frame to pixels of the portrait.
    return portrait.transform(
        (WIDTH, HEIGHT),
        Image.Transform.AFFINE,
        (c, s, cx - c * x - s * y, -s, c, cy + s * x - c * y),
        Image.Resampling.BICUBIC,
    )


def wall(t: float) -> Image.Image:
    """The frame with a wall that a slowly moving light illuminates from a corner."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    light = np.hypot(x - 80 - 20 * math.sin(2 * math.pi * t / 4.0), (y - 60) * 1.2)
    shade = 205 - 110 * np.clip(light / 760, 0, 1)
    rgb = np.stack([shade, shade * 0.97, shade * 0.9], axis=-1)
    return Image.fromarray(rgb.astype(np.uint8))


def sentence(text: str) -> np.ndarray:
    """`text` spoken: f64 samples at 16 kHz with a peak of 0.5."""
    spoken = subprocess.run(["espeak-ng", *VOICE, "-z", "--stdout", text], check=True, capture_output=True).stdout
    with wave.open(io.BytesIO(spoken)) as reader:
        rate_hz = reader.getframerate()
        # The header has no valid length, because espeak-ng writes to a pipe.
        samples = np.frombuffer(reader.readframes(len(spoken)), dtype="<i2").astype(np.float64)
    common = math.gcd(rate_hz, RATE_HZ)
    samples = resample_poly(samples, RATE_HZ // common, rate_hz // common)
    return 0.5 * samples / np.abs(samples).max()


def sound() -> np.ndarray:
    """The whole sound track: s16 samples at 16 kHz."""
    rng = np.random.default_rng(2022)
    track = rng.normal(0.0, ROOM_NOISE, int(SECONDS * RATE_HZ))
    for start, longest, text in SENTENCES:
        samples = sentence(text)
        length = len(samples) / RATE_HZ
        if length > longest:
            raise SystemExit(f"{text!r}: takes {length:.2f} s, at most {longest} s fit: raise the speed in VOICE")
        at = int(start * RATE_HZ)
        track[at : at + len(samples)] += samples
    return np.clip(np.round(track * 32767), -32768, 32767).astype("<i2")


def main() -> None:
    parser = arguments.parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder that receives demo.mkv")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    clip = options.out / "demo.mkv"

    extended = np.pad(data.astronaut(), ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), mode="edge")
    portrait = Image.fromarray(extended)
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "sound.s16"
        raw.write_bytes(sound().tobytes())
        command = ["ffmpeg", "-y", "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}"]
        command += ["-r", str(FPS), "-i", "pipe:0", "-f", "s16le", "-ar", str(RATE_HZ), "-ac", "1", "-i", str(raw)]
        command += ["-c:v", "mjpeg", "-q:v", "5", "-pix_fmt", "yuvj420p", "-threads", "1", "-c:a", "pcm_s16le"]
        command += ["-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact", str(clip)]
        ffmpeg = subprocess.Popen(command, stdin=subprocess.PIPE)
        for i in range(int(SECONDS * FPS)):
            t = i / FPS
            frame = face(portrait, t) if t < FACE_ENDS else wall(t)
            ffmpeg.stdin.write(frame.tobytes())
        ffmpeg.stdin.close()
        if ffmpeg.wait() != 0:
            raise SystemExit("ffmpeg: failed: see its message above")
    print(f"{clip}: {clip.stat().st_size} bytes")


if __name__ == "__main__":
    arguments.run(main)
