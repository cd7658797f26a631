//! voucher: gift vouchers on the command line. Knows no key; the secret functions of voucher.h do.
use std::ffi::{CStr, CString};
use std::io::BufRead;
use std::process::exit;
use voucher::{voucher as Voucher, voucher_check, voucher_issue, voucher_total};

const USAGE: &str =
    "usage: voucher issue SERIAL CENTS\n       voucher check CODE\n       voucher total: codes, \
                     one a line, on standard input";
const CODE_BYTES: usize = 24;
const WRONG: i32 = 1;
const USED_BADLY: i32 = 2;
const FAILED: i32 = 3;

fn end(message: &str, code: i32) -> ! {
    eprintln!("{}", message);
    exit(code)
}

/// End the program if the latest call was not carried out.
fn expect_carried_out() {
    if unsafe { voucher::cafe_last_error() } != 0 {
        let message = unsafe { CStr::from_ptr(voucher::cafe_error_message()) };
        end(&message.to_string_lossy(), FAILED);
    }
}

fn number(text: &str) -> u32 {
    text.parse().unwrap_or_else(|_| end(USAGE, USED_BADLY))
}

fn issue(serial: u32, cents: u32) {
    let wanted = Voucher { serial, cents };
    let mut code = [0; CODE_BYTES];
    let result = unsafe { voucher_issue(&wanted, code.as_mut_ptr()) };
    expect_carried_out();
    if result != voucher::VOUCHER_OK {
        end("a voucher is worth 1 to 16777215 cents", USED_BADLY);
    }
    println!(
        "{}",
        unsafe { CStr::from_ptr(code.as_ptr()) }.to_string_lossy()
    );
}

fn check(code: &str) {
    let text = CString::new(code).unwrap_or_else(|_| end(USAGE, USED_BADLY));
    let mut found = Voucher {
        serial: 0,
        cents: 0,
    };
    let result = unsafe { voucher_check(text.as_ptr(), &mut found) };
    expect_carried_out();
    match result {
        voucher::VOUCHER_OK => println!("serial {} cents {}", found.serial, found.cents),
        voucher::VOUCHER_FORGED => end("nobody issued this code", WRONG),
        _ => end("this is no code", USED_BADLY),
    }
}

fn total() {
    let mut codes = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap_or_else(|error| end(&error.to_string(), USED_BADLY));
        let mut code = [0i8; CODE_BYTES]; // a longer line is no code, cut or not
        for (to, from) in code.iter_mut().take(CODE_BYTES - 1).zip(line.bytes()) {
            *to = from as i8;
        }
        codes.push(code);
    }
    let mut bad = 0;
    let cents = unsafe { voucher_total(codes.as_ptr(), codes.len() as u32, &mut bad) };
    expect_carried_out();
    println!("cents {} bad {}", cents, bad);
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["issue", serial, cents] => issue(number(serial), number(cents)),
        ["check", code] => check(code),
        ["total"] => total(),
        _ => end(USAGE, USED_BADLY),
    }
}
