//! The checksum of a frame: CRC-16 with polynomial 0x1021, start value 0xFFFF, neither input nor output reflected, nothing
//! XORed at the end; catalogued as CRC-16/IBM-3740, in older texts "CCITT-FALSE". In 36 bytes it finds every error of up to
//! three bits and every burst of up to sixteen.

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
    fn it_has_the_check_value_of_the_catalogue() {
        assert_eq!(crc16(b"123456789"), 0x29B1);
        assert_eq!(crc16(b""), 0xFFFF);
    }
}
