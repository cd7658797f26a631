//! Crockford's base 32: symbols that are hard to confuse, five bits each.

const SYMBOLS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
pub const COUNT: usize = 20;
const GROUP: usize = 5;

/// Write 100 bits as four groups with dashes between them.
pub fn encode(number: u128, to: &mut [u8]) {
    let mut place = 0;
    for index in 0..COUNT {
        if index > 0 && index % GROUP == 0 {
            to[place] = b'-';
            place += 1;
        }
        let shift = 5 * (COUNT - 1 - index);
        to[place] = SYMBOLS[(number >> shift) as usize & 31];
        place += 1;
    }
}

/// Read what a person typed; None if it is not a code.
pub fn decode(text: &[u8]) -> Option<u128> {
    let mut number = 0;
    let mut count = 0;
    for &typed in text.iter().filter(|&&byte| byte != b'-' && byte != b' ') {
        let symbol = match typed.to_ascii_uppercase() {
            b'O' => b'0',
            b'I' | b'L' => b'1',
            other => other,
        };
        let value = SYMBOLS.iter().position(|&known| known == symbol)?;
        number = number << 5 | value as u128;
        count += 1;
        if count > COUNT {
            return None;
        }
    }
    if count == COUNT {
        Some(number)
    } else {
        None
    }
}
