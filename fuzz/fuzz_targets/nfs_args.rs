#![no_main]

libfuzzer_sys::fuzz_target!(init: remoor_fuzz::plant(remoor_fuzz::nfs_args::seeds()), |data| remoor_fuzz::nfs_args::run(data));
