//! Reading and writing the bodies of requests and responses.
//!
//! All numbers are little-endian. A [`Reader`] checks every length and every count against the bytes that are there
//! before anything is allocated, and hands out payloads as slices of the body. A [`Writer`] copies small values and
//! takes large payloads over as they are. Neither knows what a field means; [`crate::api`] does.

mod reader;
mod writer;

pub use reader::{DecodeError, Reader};
pub use writer::{TaggedWriter, Writer};

/// Entry for fuzzing: values of all kinds in whatever order the bytes say.
#[doc(hidden)]
pub fn fuzz_reader(input: &[u8]) {
    let mut reader = Reader::new(bytes::Bytes::copy_from_slice(input));
    while let Ok(choice) = reader.u8() {
        let done = match choice % 8 {
            0 => reader.bytes().is_err(),
            1 => reader.string().is_err(),
            2 => reader.list(8, |r| r.u64()).is_err(),
            3 => reader.list(2, |r| r.tagged(|_, _| Ok(false))).is_err(),
            4 => reader.tagged(|_, value| value.u32().map(|_| true)).is_err(),
            5 => reader.bool().is_err(),
            6 => reader.uuid().is_err(),
            _ => reader.option(|r| r.i64()).is_err(),
        };
        if done {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn flat(writer: Writer) -> Bytes {
        Bytes::from(writer.finish().concat())
    }

    #[test]
    fn a_count_bomb_is_refused_before_anything_is_allocated() {
        let mut writer = Writer::new();
        writer.put_u32(u32::MAX);
        writer.put_u64(7);
        let error = Reader::new(flat(writer)).list(16, |r| r.u64()).unwrap_err();
        assert_eq!(error, DecodeError::CountTooLarge { count: u32::MAX, element_len_min: 16, remaining: 8 });
    }

    #[test]
    fn large_payloads_are_taken_over_not_copied() {
        let payload = Bytes::from(vec![7; 100_000]);
        let mut writer = Writer::new();
        writer.put_u32(1);
        writer.put_bytes(payload.clone());
        writer.put_u32(2);
        assert_eq!(writer.len(), 4 + 4 + 100_000 + 4);
        let chunks = writer.finish();
        assert_eq!(chunks.len(), 3);
        assert_eq!(chunks[1].as_ptr(), payload.as_ptr());

        let body = Bytes::from(chunks.concat());
        let mut reader = Reader::new(body.clone());
        assert_eq!(reader.u32(), Ok(1));
        assert_eq!(reader.bytes().unwrap().as_ptr(), body[8..].as_ptr());
    }

    #[test]
    fn unknown_tags_are_skipped_and_disorder_is_refused() {
        let mut tags = TaggedWriter::new();
        tags.field(1, |w| w.put_u64(11));
        tags.field(9, |w| w.put_str("from the future"));
        let mut writer = Writer::new();
        tags.finish(&mut writer);
        let mut seen = None;
        let mut reader = Reader::new(flat(writer));
        reader
            .tagged(|tag, value| {
                if tag == 1 {
                    seen = Some(value.u64()?);
                }
                Ok(tag == 1)
            })
            .unwrap();
        reader.finish().unwrap();
        assert_eq!(seen, Some(11));

        let twice = Bytes::from_static(&[2, 0, 3, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0]);
        let error = Reader::new(twice).tagged(|_, _| Ok(false)).unwrap_err();
        assert_eq!(error, DecodeError::TagOrder { tag: 3, previous: 3 });
    }

    #[test]
    fn a_known_tag_with_bytes_left_over_is_refused() {
        let long = Bytes::from_static(&[1, 0, 0, 0, 5, 0, 0, 0, 1, 2, 3, 4, 5]);
        let error = Reader::new(long).tagged(|_, value| value.u32().map(|_| true)).unwrap_err();
        assert_eq!(error, DecodeError::TrailingBytes { count: 1 });
    }

    proptest! {
        #[test]
        fn values_survive(a: u8, b: u16, c: u32, d: u64, e: i64, f: bool, s in "\\PC*", id: [u8; 16],
                          list in proptest::collection::vec(any::<u32>(), 0..40), o: Option<i64>,
                          payload in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            let mut w = Writer::new();
            w.put_u8(a); w.put_u16(b); w.put_u32(c); w.put_u64(d); w.put_i64(e); w.put_bool(f);
            w.put_str(&s); w.put_uuid(id); w.put_list(&list, |w, n| w.put_u32(*n));
            w.put_option(o.as_ref(), |w, n| w.put_i64(*n));
            w.put_bytes(Bytes::from(payload.clone()));
            let len = w.len();
            let body = flat(w);
            prop_assert_eq!(body.len(), len);
            let mut r = Reader::new(body);
            prop_assert_eq!(r.u8(), Ok(a)); prop_assert_eq!(r.u16(), Ok(b)); prop_assert_eq!(r.u32(), Ok(c));
            prop_assert_eq!(r.u64(), Ok(d)); prop_assert_eq!(r.i64(), Ok(e)); prop_assert_eq!(r.bool(), Ok(f));
            prop_assert_eq!(r.string(), Ok(s)); prop_assert_eq!(r.uuid(), Ok(id));
            prop_assert_eq!(r.list(4, |r| r.u32()), Ok(list));
            prop_assert_eq!(r.option(|r| r.i64()), Ok(o));
            prop_assert_eq!(r.bytes(), Ok(Bytes::from(payload)));
            prop_assert_eq!(r.finish(), Ok(()));
        }

        #[test]
        fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..400)) {
            fuzz_reader(&noise);
        }
    }
}
