#![no_main]

libfuzzer_sys::fuzz_target!(init: remoor_fuzz::plant(remoor_fuzz::mnt::seeds()), |data| remoor_fuzz::mnt::run(data));
