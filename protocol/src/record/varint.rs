//! Zigzag varints: seven bits a byte, least significant first, small numbers of either sign short.

/// The longest varint, in bytes.
pub(super) const LEN_MAX: usize = 10;

/// Bytes that `value` takes.
#[inline]
pub(super) const fn len(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// Writes `value` at the front of `room` and says how many bytes it took.
#[inline]
pub(super) fn put(value: i64, room: &mut [u8]) -> usize {
    let mut rest = zigzag(value);
    let mut len = 0;
    while rest >= 0x80 {
        room[len] = low_byte(rest) | 0x80;
        rest >>= 7;
        len += 1;
    }
    room[len] = low_byte(rest);
    len + 1
}

/// A varint at the front of `bytes`, and its length; `None` if it does not end within `bytes` or within 64 bits.
#[inline]
pub(super) fn get(bytes: &[u8]) -> Option<(i64, usize)> {
    let (&first, _) = bytes.split_first()?;
    if first < 0x80 {
        return Some((unzigzag(first.into()), 1));
    }
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(LEN_MAX).enumerate() {
        if index == LEN_MAX - 1 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Some((unzigzag(value), index + 1));
        }
    }
    None
}

#[inline]
const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

#[inline]
const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[inline]
const fn low_byte(value: u64) -> u8 {
    (value & 0xff) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_numbers_of_either_sign_are_short() {
        for (value, bytes) in
            [(0, &[0][..]), (-1, &[1]), (1, &[2]), (63, &[126]), (-64, &[127]), (64, &[128, 1])]
        {
            let mut room = [0; LEN_MAX];
            let len = put(value, &mut room);
            assert_eq!(&room[..len], bytes, "{value}");
        }
    }

    #[test]
    fn endless_numbers_are_refused() {
        assert_eq!(get(&[0x80; 11]), None);
        assert_eq!(get(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]), None);
        assert_eq!(get(&[]), None);
        assert_eq!(get(&[0x80]), None);
    }

    proptest! {
        #[test]
        fn numbers_survive(value: i64, shift in 0..64) {
            let value = value >> shift;
            let mut room = [0; LEN_MAX];
            let len = put(value, &mut room);
            prop_assert_eq!(len, super::len(value));
            prop_assert_eq!(get(&room[..len]), Some((value, len)));
            prop_assert_eq!(get(&room[..len - 1]), None);
        }
    }
}
