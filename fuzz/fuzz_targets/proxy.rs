#![no_main]

libfuzzer_sys::fuzz_target!(init: remoor_fuzz::plant(remoor_fuzz::proxy::seeds()), |data| remoor_fuzz::proxy::run(data));
