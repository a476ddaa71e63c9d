#![no_main]

libfuzzer_sys::fuzz_target!(init: remoor_fuzz::plant(remoor_fuzz::exports::seeds()), |data| remoor_fuzz::exports::run(data));
