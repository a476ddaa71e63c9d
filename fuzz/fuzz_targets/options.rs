#![no_main]

libfuzzer_sys::fuzz_target!(init: remoor_fuzz::plant(remoor_fuzz::options::seeds()), |data| remoor_fuzz::options::run(data));
