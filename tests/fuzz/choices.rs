//! Bytes as a list of choices. What is made from them is small where the list is short, so a failure shrinks well.

/// What is left of the list. An empty one answers zero for ever.
pub(crate) struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn are_left(&self) -> bool {
        !self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or(0)
    }

    /// At most 256 ways.
    pub(crate) fn below(&mut self, ways: usize) -> usize {
        usize::from(self.byte()) % ways
    }

    pub(crate) fn one_of<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub(crate) fn sometimes(&mut self) -> bool {
        self.below(4) == 3
    }

    /// Mostly small, now and then at the edges.
    pub(crate) fn number(&mut self) -> u64 {
        match self.byte() {
            edge @ 250.. => {
                [1 << 32, 1 << 48, (1 << 48) + 1, 1 << 62, i64::MAX as u64, u64::MAX][usize::from(edge) - 250]
            }
            small => u64::from(small),
        }
    }

    /// As [`Choices::number`], of either sign.
    pub(crate) fn signed(&mut self) -> i64 {
        let number = self.number().cast_signed();
        if self.sometimes() { number.wrapping_neg() } else { number }
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.byte()).collect()
    }

    /// As many as one of these says.
    pub(crate) fn bytes_of(&mut self, lengths: &[usize]) -> Vec<u8> {
        let length = self.one_of(lengths);
        self.bytes(length)
    }

    pub(crate) fn list<T>(&mut self, most: usize, mut each: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| each(self)).collect()
    }

    pub(crate) fn perhaps<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (!self.sometimes()).then(|| make(self))
    }

    /// A few edits: what a bad disk, a cut connection or another version would make of it.
    pub(crate) fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..self.below(5) {
            if bytes.is_empty() {
                return;
            }
            let at = (self.below(256) << 8 | self.below(256)) % bytes.len();
            let until = (at + self.below(64)).min(bytes.len());
            match self.below(6) {
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at] = self.one_of(&[0, 0x7f, 0x80, 0xff]),
                2 => bytes.truncate(at),
                3 => drop(bytes.drain(at..until)),
                4 => bytes.extend_from_within(at..until),
                _ => bytes.insert(at, self.byte()),
            }
        }
    }
}
