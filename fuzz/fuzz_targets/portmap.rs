#![no_main]

libfuzzer_sys::fuzz_target!(init: remoor_fuzz::plant(remoor_fuzz::portmap::seeds()), |data| remoor_fuzz::portmap::run(data));
