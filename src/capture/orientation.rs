//! How a camera is mounted, and the turn that makes its images upright.

use serde::{Deserialize, Serialize};

use super::luma::Luma;

/// A clockwise turn of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rotation {
    #[default]
    None,
    Clockwise90,
    HalfTurn,
    Clockwise270,
}

/// A mirror image, made before the turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flip {
    #[default]
    None,
    /// Left and right are exchanged.
    Horizontal,
    /// Top and bottom are exchanged.
    Vertical,
}

/// Makes images upright.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Orientation {
    pub rotation: Rotation,
    pub flip: Flip,
}

impl Rotation {
    pub const ALL: [Rotation; 4] = [
        Rotation::None,
        Rotation::Clockwise90,
        Rotation::HalfTurn,
        Rotation::Clockwise270,
    ];

    /// `None` unless `degrees` is 0, 90, 180 or 270.
    pub fn from_degrees(degrees: u32) -> Option<Rotation> {
        Rotation::ALL.into_iter().find(|rotation| rotation.degrees() == degrees)
    }

    pub fn degrees(self) -> u32 {
        match self {
            Rotation::None => 0,
            Rotation::Clockwise90 => 90,
            Rotation::HalfTurn => 180,
            Rotation::Clockwise270 => 270,
        }
    }

    /// This turn after another.
    pub fn after(self, first: Rotation) -> Rotation {
        Rotation::from_degrees((self.degrees() + first.degrees()) % 360).unwrap_or_default()
    }
}

impl Orientation {
    /// The image mirrored and turned. An image that is upright already is not copied.
    pub fn apply(self, image: Luma) -> Luma {
        if self == Orientation::default() {
            return image;
        }
        // Both are exchanges of rows or columns of the result, or of the two axes.
        let (transposed, from_right, from_bottom) = match self.rotation {
            Rotation::None => (false, false, false),
            Rotation::Clockwise90 => (true, false, true),
            Rotation::HalfTurn => (false, true, true),
            Rotation::Clockwise270 => (true, true, false),
        };
        let from_right = from_right ^ (self.flip == Flip::Horizontal);
        let from_bottom = from_bottom ^ (self.flip == Flip::Vertical);
        let (width, height) = (image.width() as usize, image.height() as usize);
        let source = image.as_slice();
        let mut turned = Vec::with_capacity(source.len());
        let row = |y: usize| &source[if from_bottom { height - 1 - y } else { y } * width..][..width];
        if transposed {
            for x in 0..width {
                let x = if from_right { width - 1 - x } else { x };
                turned.extend((0..height).map(|y| row(y)[x]));
            }
        } else {
            for y in 0..height {
                match from_right {
                    true => turned.extend(row(y).iter().rev()),
                    false => turned.extend_from_slice(row(y)),
                }
            }
        }
        let (width, height) = match transposed {
            true => (image.height(), image.width()),
            false => (image.width(), image.height()),
        };
        Luma::new(width, height, turned).unwrap_or(image)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const F: [&str; 3] = ["ab", "cd", "ef"];

    /// `F`, mirrored and turned, as rows of text.
    fn turned(rotation: Rotation, flip: Flip) -> Vec<String> {
        let data = F.concat().into_bytes();
        let image = Orientation { rotation, flip }.apply(Luma::new(2, 3, data).unwrap());
        (0..image.height())
            .map(|y| String::from_utf8(image.row(y).to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn turns_are_clockwise() {
        assert_eq!(turned(Rotation::None, Flip::None), F);
        assert_eq!(turned(Rotation::Clockwise90, Flip::None), ["eca", "fdb"]);
        assert_eq!(turned(Rotation::HalfTurn, Flip::None), ["fe", "dc", "ba"]);
        assert_eq!(turned(Rotation::Clockwise270, Flip::None), ["bdf", "ace"]);
    }

    #[test]
    fn a_flip_comes_before_the_turn() {
        assert_eq!(turned(Rotation::None, Flip::Horizontal), ["ba", "dc", "fe"]);
        assert_eq!(turned(Rotation::None, Flip::Vertical), ["ef", "cd", "ab"]);
        assert_eq!(turned(Rotation::Clockwise90, Flip::Horizontal), ["fdb", "eca"]);
        assert_eq!(turned(Rotation::Clockwise270, Flip::Vertical), ["fdb", "eca"]);
        assert_eq!(turned(Rotation::HalfTurn, Flip::Vertical), ["ba", "dc", "fe"]);
    }

    #[test]
    fn only_right_angles_are_turns() {
        assert_eq!(Rotation::from_degrees(270), Some(Rotation::Clockwise270));
        assert_eq!(Rotation::from_degrees(45), None);
        assert_eq!(Rotation::HalfTurn.after(Rotation::Clockwise270), Rotation::Clockwise90);
    }

    proptest! {
        #[test]
        fn four_quarter_turns_and_two_flips_change_nothing(width in 1u32..9, height in 1u32..9) {
            let data: Vec<u8> = (0..width * height).map(|i| i as u8).collect();
            let image = Luma::new(width, height, data).unwrap();
            let quarter = Orientation { rotation: Rotation::Clockwise90, flip: Flip::None };
            let back = (0..4).fold(image.clone(), |image, _| quarter.apply(image));
            prop_assert_eq!(&back, &image);
            for flip in [Flip::Horizontal, Flip::Vertical] {
                let mirror = Orientation { rotation: Rotation::None, flip };
                prop_assert_eq!(&mirror.apply(mirror.apply(image.clone())), &image);
            }
        }
    }
}
