//! The checksum of a frame: CRC-16 with polynomial 0x1021, initial value 0xFFFF, no reflection and no final XOR. Its
//! catalogue name is CRC-16/IBM-3740, in older texts "CCITT-FALSE". In 36 bytes it detects every error of up to three bits
//! and every burst of up to sixteen bits.

const POLYNOMIAL: u16 = 0x1021;

pub fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xFFFF, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            let shifted = crc << 1;
            if crc & 0x8000 == 0 {
                shifted
            } else {
                shifted ^ POLYNOMIAL
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc16_matches_the_check_value_of_the_catalogue() {
        assert_eq!(crc16(b"123456789"), 0x29B1);
        assert_eq!(crc16(b""), 0xFFFF);
    }
}
