#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| adit_proto::fuzzing::pref64(data));
