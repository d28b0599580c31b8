//! Buffers of large request bodies, used again: giving half a megabyte back to the system and asking
//! for it anew costs more than all that is done with it.

use std::sync::{Mutex, PoisonError};

use bytes::{Bytes, BytesMut};

/// Most buffers kept, and what makes one worth it: together no more than 16 MiB.
const MOST: usize = 8;
const SIZES: std::ops::RangeInclusive<usize> = 64 << 10..=2 << 20;

/// Buffers that no one uses now.
#[derive(Debug, Default)]
pub(crate) struct Buffers(Mutex<Vec<BytesMut>>);

impl Buffers {
    /// An empty buffer with room for so many bytes.
    pub(crate) fn take(&self, capacity: usize) -> BytesMut {
        let spare = SIZES.contains(&capacity).then(|| self.lock(Vec::pop));
        let mut buffer = spare.flatten().unwrap_or_default();
        buffer.reserve(capacity);
        buffer
    }

    /// Takes a body back, unless someone still holds it.
    pub(crate) fn give_back(&self, body: Bytes) {
        if !SIZES.contains(&body.len()) {
            return;
        }
        let Ok(mut buffer) = body.try_into_mut() else {
            return;
        };
        buffer.clear();
        self.lock(|spare| {
            if spare.len() < MOST && SIZES.contains(&buffer.capacity()) {
                spare.push(buffer);
            }
        });
    }

    fn lock<R>(&self, step: impl FnOnce(&mut Vec<BytesMut>) -> R) -> R {
        step(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: usize = 100 << 10;

    fn body(buffers: &Buffers, size: usize) -> Bytes {
        let mut buffer = buffers.take(size);
        assert!(buffer.is_empty());
        buffer.extend_from_slice(&vec![7; size]);
        buffer.freeze()
    }

    #[test]
    fn a_buffer_is_used_again_once_no_one_holds_it() {
        let buffers = Buffers::default();
        let first = body(&buffers, LARGE);
        let place = first.as_ptr();
        let held = first.clone();
        buffers.give_back(first);
        let second = body(&buffers, LARGE);
        assert_ne!(second.as_ptr(), place);
        assert_eq!(held, vec![7; LARGE]);
        buffers.give_back(held);
        assert_eq!(body(&buffers, LARGE).as_ptr(), place);
    }

    #[test]
    fn few_are_kept_and_none_that_is_small_or_huge() {
        let buffers = Buffers::default();
        for size in [1, SIZES.start() - 1, SIZES.end() + 1] {
            let body = body(&buffers, size);
            buffers.give_back(body);
        }
        assert_eq!(buffers.lock(|spare| spare.len()), 0);
        let bodies: Vec<_> = (0..MOST + 3).map(|_| body(&buffers, LARGE)).collect();
        for body in bodies {
            buffers.give_back(body);
        }
        assert_eq!(buffers.lock(|spare| spare.len()), MOST);
    }
}
