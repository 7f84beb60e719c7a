//! Entropy and clocks of the C library, replaced for the thread that simulates.
//!
//! Libraries ask the C library for randomness (`getrandom`, and `syscall(SYS_getrandom)`) and for time
//! (`clock_gettime`): hash-map keys, thread-local generators, hyper's `Date`, log lines. The symbols below take their
//! place in this binary. A thread that has not called [`activate`] still gets the real thing.
//!
//! Linux on x86-64 only, and never linked into the product.
#![allow(unsafe_code)]

use std::cell::Cell;

/// 2026-01-01 00:00:00 UTC.
pub const EPOCH_UNIX_S: u64 = 1_767_225_600;

thread_local! {
    static ACTIVE: Cell<bool> = const { Cell::new(false) };
    static RANDOM: Cell<u64> = const { Cell::new(0) };
    static MONO_NS: Cell<u64> = const { Cell::new(0) };
    static WALL_NS: Cell<u64> = const { Cell::new(0) };
}

/// From now on this thread lives under `seed`.
pub fn activate(seed: u64) {
    RANDOM.set(seed ^ 0x9e37_79b9_7f4a_7c15);
    ACTIVE.set(true);
}

/// Sets what the C library's clocks answer on this thread: nanoseconds since boot, and since the Unix epoch.
pub fn set_clocks(mono_ns: u64, wall_ns: u64) {
    MONO_NS.set(mono_ns);
    WALL_NS.set(wall_ns);
}

/// SplitMix64 (Steele, Lea, Flood, 2014): small, and good enough to stand in for entropy.
pub fn next(state: &Cell<u64>) -> u64 {
    let seed = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    state.set(seed);
    let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// # Safety
/// `out` must be valid for `len` bytes of writing.
unsafe fn fill(out: *mut u8, len: usize) {
    RANDOM.with(|state| {
        for offset in 0..len {
            // SAFETY: `offset < len`, and the caller vouches for `len` bytes.
            unsafe { out.add(offset).write(next(state).to_le_bytes()[0]) };
        }
    });
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(
    out: *mut libc::c_void,
    len: libc::size_t,
    flags: libc::c_uint,
) -> libc::ssize_t {
    if ACTIVE.get() {
        // SAFETY: the contract of `getrandom`.
        unsafe { fill(out.cast(), len) };
        return libc::ssize_t::try_from(len).unwrap_or(libc::ssize_t::MAX);
    }
    // SAFETY: the arguments are passed on as they came.
    let raw =
        unsafe { raw_syscall(libc::SYS_getrandom, [out as i64, len as i64, i64::from(flags), 0, 0, 0]) };
    // SAFETY: `raw` is what the kernel answered.
    unsafe { answer(raw) as libc::ssize_t }
}

/// # Safety
/// As the C library's. It is variadic there; six register arguments are all that any system call takes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syscall(
    number: libc::c_long,
    a: i64,
    b: i64,
    c: i64,
    d: i64,
    e: i64,
    f: i64,
) -> libc::c_long {
    if number == libc::SYS_getrandom && ACTIVE.get() {
        let len = usize::try_from(b).unwrap_or(0);
        // SAFETY: the contract of `getrandom`.
        unsafe { fill(a as *mut u8, len) };
        return b;
    }
    // SAFETY: the arguments are passed on as they came.
    let raw = unsafe { raw_syscall(number, [a, b, c, d, e, f]) };
    // SAFETY: `raw` is what the kernel answered.
    unsafe { answer(raw) }
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, out: *mut libc::timespec) -> libc::c_int {
    if !ACTIVE.get() {
        // SAFETY: the arguments are passed on as they came.
        let raw = unsafe { raw_syscall(libc::SYS_clock_gettime, [i64::from(clock), out as i64, 0, 0, 0, 0]) };
        // SAFETY: `raw` is what the kernel answered.
        return unsafe { answer(raw) as libc::c_int };
    }
    let ns = match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => WALL_NS.get(),
        _ => MONO_NS.get(),
    };
    let time = libc::timespec { tv_sec: (ns / 1_000_000_000) as i64, tv_nsec: (ns % 1_000_000_000) as i64 };
    // SAFETY: the contract of `clock_gettime`: `out` is valid for writing.
    unsafe { out.write(time) };
    0
}

/// # Safety
/// The arguments must be right for the system call.
unsafe fn raw_syscall(number: libc::c_long, args: [i64; 6]) -> i64 {
    let answer: i64;
    // SAFETY: Linux' x86-64 convention; the kernel clobbers rcx and r11 only.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number => answer,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    answer
}

/// Turns the kernel's answer into the C library's: −1 and `errno`.
///
/// # Safety
/// None beyond the C library's own.
unsafe fn answer(raw: i64) -> libc::c_long {
    if (-4095..0).contains(&raw) {
        // SAFETY: the location of this thread's `errno` is always valid.
        unsafe { *libc::__errno_location() = -raw as libc::c_int };
        return -1;
    }
    raw
}
