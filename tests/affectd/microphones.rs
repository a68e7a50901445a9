//! `affectd run` with microphones that are plugins of ALSA, which need no sound card.

use std::fs;
use std::process::Output;

use super::affectd;

/// Runs affectd without a camera, and with this definition of the microphone `mic`.
fn run_with(definition: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("alsa.conf");
    fs::write(&config, definition.replace("FOLDER", folder.path().to_str().unwrap())).unwrap();
    let second = vec![0; 2 * 48_000];
    fs::write(folder.path().join("sound.raw"), second.repeat(4)).unwrap();
    affectd()
        .arg("run")
        .env("ALSA_CONFIG_PATH", &config)
        .env("AFFECTD_CAMERA_DEVICE", "/dev/video-none")
        .env("AFFECTD_MICROPHONE_DEVICE", "mic")
        .output()
        .unwrap()
}

#[test]
fn a_microphone_without_a_clock_is_refused() {
    for definition in [
        "pcm.mic { type null }",
        "pcm.silence { type null }\npcm.mic { type plug slave.pcm silence }",
        // A device without interleaved samples, which ALSA converts.
        "</usr/share/alsa/alsa.conf>\npcm.silence { type null }\npcm.mic { type multi slaves { a { pcm silence channels 2 } } \
         bindings { 0 { slave a channel 0 } 1 { slave a channel 1 } } }",
        "pcm.silence { type null }\npcm.mic { type file slave.pcm silence file /dev/null infile \"FOLDER/sound.raw\" }",
    ] {
        let output = run_with(definition);
        let log = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{definition}: {log}");
        assert_eq!(
            log.lines().last().unwrap(),
            "affectd: mic: is not a microphone: it returns samples as fast as they are read: `affectd devices` lists the \
             microphones, and `run --input CLIP --realtime` plays a file",
            "{definition}"
        );
    }
}
