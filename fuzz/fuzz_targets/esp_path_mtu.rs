#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| adit_proto::fuzzing::esp_path_mtu(data));
