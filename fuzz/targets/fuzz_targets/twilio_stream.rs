#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| voiced_fuzz::feed("twilio_stream", bytes));
