//! Points and boxes in images: x to the right, y down, in pixels unless stated otherwise.

/// A position.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Point {
    pub x: f32,
    pub y: f32,
}

impl Point {
    pub fn midway(self, other: Point) -> Point {
        Point {
            x: (self.x + other.x) / 2.0,
            y: (self.y + other.y) / 2.0,
        }
    }

    pub fn distance(self, other: Point) -> f32 {
        (self.x - other.x).hypot(self.y - other.y)
    }

    pub fn moved(self, dx: f32, dy: f32) -> Point {
        Point {
            x: self.x + dx,
            y: self.y + dy,
        }
    }
}

/// An upright box, by its top left corner.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rect {
    pub x: f32,
    pub y: f32,
    pub w: f32,
    pub h: f32,
}

impl Rect {
    pub fn area(self) -> f32 {
        self.w.max(0.0) * self.h.max(0.0)
    }

    pub fn centre(self) -> Point {
        Point {
            x: self.x + self.w / 2.0,
            y: self.y + self.h / 2.0,
        }
    }

    pub fn moved(self, dx: f32, dy: f32) -> Rect {
        Rect {
            x: self.x + dx,
            y: self.y + dy,
            ..self
        }
    }

    /// Intersection over union, 0..1; 0 for boxes without area.
    pub fn iou(self, other: Rect) -> f32 {
        let w = (self.x + self.w).min(other.x + other.w) - self.x.max(other.x);
        let h = (self.y + self.h).min(other.y + other.h) - self.y.max(other.y);
        let common = w.max(0.0) * h.max(0.0);
        let union = self.area() + other.area() - common;
        if union > 0.0 { common / union } else { 0.0 }
    }
}

/// A detected face.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Face {
    pub bounds: Rect,
    /// Detector confidence, 0..1.
    pub score: f32,
    pub landmarks: Landmarks,
}

impl Face {
    pub fn moved(self, dx: f32, dy: f32) -> Face {
        Face {
            bounds: self.bounds.moved(dx, dy),
            landmarks: self.landmarks.moved(dx, dy),
            ..self
        }
    }
}

/// The six landmarks of BlazeFace. Right and left are the person's own.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Landmarks {
    pub right_eye: Point,
    pub left_eye: Point,
    pub nose: Point,
    pub mouth: Point,
    pub right_ear: Point,
    pub left_ear: Point,
}

impl Landmarks {
    pub fn from_points([right_eye, left_eye, nose, mouth, right_ear, left_ear]: [Point; 6]) -> Self {
        Landmarks {
            right_eye,
            left_eye,
            nose,
            mouth,
            right_ear,
            left_ear,
        }
    }

    pub fn to_points(self) -> [Point; 6] {
        [
            self.right_eye,
            self.left_eye,
            self.nose,
            self.mouth,
            self.right_ear,
            self.left_ear,
        ]
    }

    pub fn moved(self, dx: f32, dy: f32) -> Landmarks {
        Landmarks::from_points(self.to_points().map(|p| p.moved(dx, dy)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iou_is_one_for_equal_boxes_and_zero_for_disjoint_ones() {
        let a = Rect {
            x: 10.0,
            y: 10.0,
            w: 20.0,
            h: 30.0,
        };
        assert_eq!(a.iou(a), 1.0);
        assert_eq!(a.iou(a.moved(20.0, 0.0)), 0.0);
        assert!((a.iou(a.moved(10.0, 0.0)) - 1.0 / 3.0).abs() < 1e-6);
    }

    #[test]
    fn boxes_without_area_overlap_nothing() {
        let flat = Rect {
            x: 0.0,
            y: 0.0,
            w: 5.0,
            h: 0.0,
        };
        assert_eq!(flat.iou(flat), 0.0);
    }
}
