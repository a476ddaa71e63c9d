#![no_main]

libfuzzer_sys::fuzz_target!(init: remoor_fuzz::plant(remoor_fuzz::server::seeds()), |data| remoor_fuzz::server::run(data));
