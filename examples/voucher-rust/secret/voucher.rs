//! The secret functions of voucher.h. A code is 56 bits that say serial and worth, masked by what the key makes of
//! the 44 bits after them, which in turn are the key's hash of those 56 bits.
#![no_std]

use cafe::{voucher, VOUCHER_ARGUMENT, VOUCHER_FORGED, VOUCHER_OK};
use core::slice;

mod siphash;
mod symbols;

/// Whoever knows this can print money.
const KEY: [u64; 2] = [0x8f3b1c5ad2e94670, 0x4ce7a09b61d3f825];

const MOST_CENTS: u32 = 16_777_215; // three bytes
const CODE_BYTES: usize = 24;
const SEAL_BITS: u32 = 44;
const BODY_MASK: u64 = (1 << 56) - 1;
const SEAL_MASK: u64 = (1 << SEAL_BITS) - 1;

/// The hash of a number; `purpose` keeps seals and masks apart.
fn keyed(purpose: u8, number: u64) -> u64 {
    let mut message = [purpose; 9];
    message[1..].copy_from_slice(&number.to_le_bytes());
    siphash::siphash(KEY, &message)
}

fn seal(plain: u64) -> u64 {
    keyed(b's', plain) & SEAL_MASK
}

fn mask(seal: u64) -> u64 {
    keyed(b'm', seal) & BODY_MASK
}

fn issue(wanted: &voucher) -> Option<u128> {
    if wanted.cents == 0 || wanted.cents > MOST_CENTS {
        return None;
    }
    let plain = u64::from(wanted.serial) << 24 | u64::from(wanted.cents);
    let sealed = seal(plain);
    Some(u128::from(plain ^ mask(sealed)) << SEAL_BITS | u128::from(sealed))
}

fn open(code: u128) -> Option<voucher> {
    let sealed = code as u64 & SEAL_MASK;
    let plain = (code >> SEAL_BITS) as u64 ^ mask(sealed);
    if seal(plain) != sealed {
        return None;
    }
    Some(voucher {
        serial: (plain >> 24) as u32,
        cents: plain as u32 & MOST_CENTS,
    })
}

fn check(text: &[u8]) -> Result<voucher, i32> {
    let code = symbols::decode(text).ok_or(VOUCHER_ARGUMENT)?;
    open(code).ok_or(VOUCHER_FORGED)
}

/// The bytes before the first NUL.
fn text_of(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or(bytes)
}

/// # Safety
/// As voucher.h says: `code` has room for VOUCHER_CODE_BYTES.
#[no_mangle]
pub unsafe extern "C" fn voucher_issue(voucher: *const voucher, code: *mut i8) -> i32 {
    if voucher.is_null() || code.is_null() {
        return VOUCHER_ARGUMENT;
    }
    match issue(&*voucher) {
        Some(number) => symbols::encode(
            number,
            slice::from_raw_parts_mut(code as *mut u8, CODE_BYTES),
        ),
        None => return VOUCHER_ARGUMENT,
    }
    VOUCHER_OK
}

/// # Safety
/// As voucher.h says: `code` ends with a NUL.
#[no_mangle]
pub unsafe extern "C" fn voucher_check(code: *const i8, found: *mut voucher) -> i32 {
    if code.is_null() || found.is_null() {
        return VOUCHER_ARGUMENT;
    }
    let length = (0..).take_while(|&index| *code.add(index) != 0).count();
    match check(slice::from_raw_parts(code as *const u8, length)) {
        Ok(voucher) => *found = voucher,
        Err(result) => return result,
    }
    VOUCHER_OK
}

/// # Safety
/// As voucher.h says: there are `count` codes.
#[no_mangle]
pub unsafe extern "C" fn voucher_total(
    codes: *const [i8; CODE_BYTES],
    count: u32,
    bad: *mut u32,
) -> i64 {
    if bad.is_null() || (codes.is_null() && count != 0) {
        return i64::from(VOUCHER_ARGUMENT);
    }
    let mut total = 0;
    for index in 0..count as usize {
        let code = &*(codes.add(index) as *const [u8; CODE_BYTES]);
        match check(text_of(code)) {
            Ok(voucher) => total += i64::from(voucher.cents),
            Err(_) => *bad += 1,
        }
    }
    total
}
