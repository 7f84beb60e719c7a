//! Is an RSA public key worth believing? Pure.

/// The shortest modulus, in bits (RFC 7518 section 3.3).
const MODULUS_BITS_MIN: usize = 2048;

/// Primes p for which every key of the flawed generator of CVE-2017-15361 has a modulus that is a power of 65537 mod p.
/// An honest modulus passes by chance with a likelihood below 2⁻²⁷.
const ROCA_PRIMES: [u32; 38] = [
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103,
    107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
];

/// Checks an RSAPublicKey (RFC 8017 appendix A.1.1, DER).
///
/// # Errors
/// What was found, what was wanted.
pub fn check(der: &[u8]) -> Result<(), String> {
    let (modulus, exponent) = numbers(der).ok_or("found damaged DER, wanted an RSAPublicKey")?;
    let bits = modulus.len() * 8 - modulus.first().map_or(0, |top| top.leading_zeros() as usize);
    if bits < MODULUS_BITS_MIN {
        return Err(format!("found an RSA key of {bits} bits, wanted {MODULUS_BITS_MIN} or more"));
    }
    let odd = exponent.last().is_some_and(|low| low & 1 == 1);
    if !odd || exponent == [1] {
        return Err("found an even RSA exponent or 1, wanted an odd one, usually 65537".to_owned());
    }
    if ROCA_PRIMES.iter().all(|p| is_power_of_65537(remainder(modulus, *p), *p)) {
        return Err("found an RSA key of a flawed generator (CVE-2017-15361), wanted a new key".to_owned());
    }
    Ok(())
}

/// Modulus and exponent, big endian, without leading zeros.
fn numbers(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (body, rest) = element(der, 0x30)?;
    let (modulus, body) = element(body, 0x02)?;
    let (exponent, end) = element(body, 0x02)?;
    let plain = |number: &'_ [u8]| number.first().is_some_and(|top| top & 0x80 == 0);
    if !rest.is_empty() || !end.is_empty() || !plain(modulus) || !plain(exponent) {
        return None;
    }
    Some((without_zeros(modulus), without_zeros(exponent)))
}

fn without_zeros(number: &[u8]) -> &[u8] {
    &number[number.iter().take_while(|byte| **byte == 0).count()..]
}

/// One DER element of kind `tag`: its content, and what follows.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, short], mut rest) = der.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    let mut len = usize::from(short);
    if short & 0x80 != 0 {
        let count = usize::from(short & 0x7f);
        if !(1..=2).contains(&count) {
            return None; // Longer than 64 KiB is no key.
        }
        len = rest.get(..count)?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        rest = &rest[count..];
    }
    rest.split_at_checked(len)
}

fn remainder(number: &[u8], p: u32) -> u32 {
    number.iter().fold(0, |rest, byte| (rest * 256 + u32::from(*byte)) % p)
}

fn is_power_of_65537(wanted: u32, p: u32) -> bool {
    let mut power = 1;
    (0..p).any(|_| {
        power = power * (65537 % p) % p;
        power == wanted
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn damaged_der_is_refused() {
        for der in
            [&[][..], &[0x30], &[0x30, 0x80], &[0x30, 3, 2, 1, 5], &[0x30, 0x84, 1, 1, 1, 1], &[0x31, 0]]
        {
            assert!(check(der).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_check_panic(der in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = check(&der);
        }
    }
}
