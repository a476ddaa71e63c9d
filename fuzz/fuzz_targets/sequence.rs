#![no_main]

libfuzzer_sys::fuzz_target!(init: remoor_fuzz::plant(remoor_fuzz::sequence::seeds()), |data| remoor_fuzz::sequence::run(data));
