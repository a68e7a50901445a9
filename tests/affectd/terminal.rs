//! A real terminal: `script` runs a command line of a shell in it.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

use crate::mosquitto::wait;

pub struct Terminal {
    script: Child,
    keys: ChildStdin,
    pieces: Receiver<Vec<u8>>,
    reading: JoinHandle<()>,
    seen: String,
}

impl Terminal {
    /// Runs `shell`, in which `$affectd` is the program. The terminal is an xterm with UTF-8, unless `environment` says otherwise.
    pub fn start(shell: &str, environment: &[(&str, &str)]) -> Terminal {
        let mut script = Command::new("script")
            .args(["-qec", shell, "/dev/null"])
            .env("affectd", env!("CARGO_BIN_EXE_affectd"))
            .env("AFFECTD_CONFIG", "/dev/null")
            .env("TERM", "xterm-256color")
            .env("LC_ALL", "C.UTF-8")
            .env("SHELL", "/bin/sh")
            .env_remove("NO_COLOR")
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script is part of every Debian: sudo apt-get install bsdutils");
        let mut stdout = script.stdout.take().unwrap();
        let (to, pieces) = channel();
        let reading = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = stdout.read(&mut buffer) {
                let _ = to.send(buffer[..n].to_vec());
            }
        });
        Terminal {
            keys: script.stdin.take().unwrap(),
            script,
            pieces,
            reading,
            seen: String::new(),
        }
    }

    /// Waits until `text` has been written to the terminal.
    pub fn wait_for(&mut self, text: &str) {
        wait(|| {
            self.take();
            self.seen.contains(text).then_some(())
        });
    }

    pub fn press(&mut self, keys: &[u8]) {
        self.keys.write_all(keys).unwrap();
    }

    /// Closes the terminal while its programs run.
    pub fn close(mut self) {
        self.script.kill().unwrap();
        self.script.wait().unwrap();
        drop(self.keys);
        self.reading.join().unwrap();
    }

    /// Waits for the end. Returns the exit code, and all that was written to the terminal.
    pub fn end(mut self) -> (Option<i32>, String) {
        let status = wait(|| self.script.try_wait().unwrap());
        drop(self.keys);
        self.reading.join().unwrap();
        self.seen += &self.pieces.try_iter().map(|piece| text(&piece)).collect::<String>();
        (status.code(), self.seen)
    }

    fn take(&mut self) {
        self.seen.extend(self.pieces.try_iter().map(|piece| text(&piece)));
    }
}

fn text(piece: &[u8]) -> String {
    String::from_utf8_lossy(piece).into_owned()
}
