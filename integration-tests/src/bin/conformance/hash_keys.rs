//! Which shard takes a record.

use aws_sdk_kinesis::primitives::Blob;

use crate::case::{Verdict, cases};
use crate::check::{Failure, refused, same};
use crate::kinesis::{HALF, Kinesis, SHARD_0, SHARD_1, Stream, range};

cases! { Kinesis, "hash_keys":
    a_shard_takes_the_hash_keys_at_its_edges,
    a_partition_key_goes_by_its_md5,
    an_explicit_hash_key_outweighs_the_partition_key,
    a_malformed_hash_key_is_refused,
    a_hash_key_has_128_bits_at_most,
}

async fn shard_of(stream: &Stream, key: &str, hash_key: Option<u128>) -> Result<String, Failure> {
    let put = stream.client.put_record().stream_name(&stream.name);
    let put = put.set_explicit_hash_key(hash_key.map(|key| key.to_string()));
    let put = put.partition_key(key).data(Blob::new("x"));
    Ok(put.send().await?.shard_id)
}

async fn a_shard_takes_the_hash_keys_at_its_edges(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(2).await?;
    for shard in stream.shards().await? {
        let (first, last) = range(&shard)?;
        for hash_key in [first, last] {
            let found = shard_of(&stream, "k", Some(hash_key)).await?;
            same(&hash_key.to_string(), &found, &shard.shard_id)?;
        }
    }
    Ok(())
}

async fn a_partition_key_goes_by_its_md5(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(2).await?;
    // Their MD5s begin with 0c, 92, 4a and 82.
    for (key, shard) in [("a", SHARD_0), ("b", SHARD_1), ("c", SHARD_0), ("d", SHARD_1)] {
        same(key, &*shard_of(&stream, key, None).await?, shard)?;
    }
    Ok(())
}

async fn an_explicit_hash_key_outweighs_the_partition_key(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(2).await?;
    same("low", &*shard_of(&stream, "b", Some(0)).await?, SHARD_0)?;
    same("high", &*shard_of(&stream, "a", Some(HALF)).await?, SHARD_1)
}

async fn a_malformed_hash_key_is_refused(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    for hash_key in ["-1", "0x10", "", "01"] {
        let put = kinesis.put_record().stream_name(&stream.name).partition_key("k");
        let put = put.explicit_hash_key(hash_key).data(Blob::new("x"));
        refused(hash_key, put.send().await, "ValidationException")?;
    }
    Ok(())
}

async fn a_hash_key_has_128_bits_at_most(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let put = kinesis.put_record().stream_name(&stream.name).partition_key("k");
    let over = "340282366920938463463374607431768211456";
    let put = put.explicit_hash_key(over).data(Blob::new("x")).send().await;
    refused(over, put, "InvalidArgumentException")
}
