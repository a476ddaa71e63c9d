#![no_main]

libfuzzer_sys::fuzz_target!(init: remoor_fuzz::plant(remoor_fuzz::nfs_res::seeds()), |data| remoor_fuzz::nfs_res::run(data));
