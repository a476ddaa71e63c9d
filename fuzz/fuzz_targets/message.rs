#![no_main]

libfuzzer_sys::fuzz_target!(init: remoor_fuzz::plant(remoor_fuzz::message::seeds()), |data| remoor_fuzz::message::run(data));
