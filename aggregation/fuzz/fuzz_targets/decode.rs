#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| kinesis_aggregation_fuzz::decode(input));
