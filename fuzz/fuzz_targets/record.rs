#![no_main]

libfuzzer_sys::fuzz_target!(init: remoor_fuzz::plant(remoor_fuzz::record::seeds()), |data| remoor_fuzz::record::run(data));
