#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| adit_proto::fuzzing::anyconnect_form(data));
