#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| affectd_fuzz::check("mjpeg", data));
