//! See kit.h.
#![no_std]

extern crate alloc;

use alloc::{boxed::Box, collections::BTreeMap, format, string::String, vec::Vec};
use cafe::{kit_item, KIT_CIRCLE, KIT_SQUARE};
use core::slice;

extern "C" {
    fn plain_c(value: i64) -> i64;
}

#[no_mangle]
pub unsafe extern "C" fn kit_count(values: *const u32, n: u32, text: *mut i8, size: u32) -> i32 {
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    for &value in slice::from_raw_parts(values, n as usize) {
        *counts.entry(value).or_default() += 1;
    }
    let words: Vec<String> = counts
        .iter()
        .map(|(value, count)| format!("{:x}:{:.1}", value, *count as f64))
        .collect();
    let text = slice::from_raw_parts_mut(text as *mut u8, size as usize);
    for (to, from) in text.iter_mut().zip(words.join(",").bytes()) {
        *to = from;
    }
    counts.len() as i32
}

#[no_mangle]
pub extern "C" fn kit_at(index: u32) -> i32 {
    [10, 20, 30][index as usize]
}

#[no_mangle]
pub extern "C" fn kit_too_much(bytes: u64) -> i32 {
    let held = alloc::vec![1u8; bytes as usize];
    i32::from(unsafe { held.as_ptr().read_volatile() }) // the compiler may not do without the memory
}

fn area(item: &kit_item) -> f64 {
    match item.shape {
        KIT_SQUARE => item.size * item.size,
        KIT_CIRCLE => 3.0 * item.size * item.size,
        _ => 0.0,
    }
}

#[no_mangle]
pub unsafe extern "C" fn kit_area(items: *const kit_item, n: u32, largest: *mut kit_item) -> f64 {
    let items = slice::from_raw_parts(items, n as usize);
    let mut sum = 0.0;
    for item in items {
        sum += area(item);
        if area(item) > area(&*largest) {
            *largest = *item;
        }
    }
    sum
}

#[no_mangle]
pub extern "C" fn kit_scaled(item: kit_item, by: f64) -> kit_item {
    kit_item {
        size: item.size * by,
        ..item
    }
}

#[no_mangle]
pub unsafe extern "C" fn kit_random(bytes: *mut u8, n: u32) -> bool {
    cafe::random(slice::from_raw_parts_mut(bytes, n as usize))
}

#[no_mangle]
pub extern "C" fn kit_from_c(value: i64) -> i64 {
    unsafe { plain_c(value) + 1 }
}

#[no_mangle]
pub extern "C" fn kit_bill(first: u32, last: u32) -> i32 {
    (first..last)
        .map(|item| unsafe { cafe::kit_price(item) })
        .sum()
}

#[repr(align(256))]
struct Wide([u8; 256]);

#[no_mangle]
pub extern "C" fn kit_aligned() -> u32 {
    let held: Vec<Box<Wide>> = (0..9).map(|value| Box::new(Wide([value; 256]))).collect();
    let aligned = held
        .iter()
        .filter(|one| (&***one as *const Wide as usize) % 256 == 0);
    aligned.map(|one| u32::from(one.0[255]) + 1).sum()
}
