//! The road by which datagrams come to us, which is sometimes bad.

/// What becomes of datagrams on their way.
pub(crate) enum Road {
    /// Each arrives once, in order.
    Good,
    /// One arrives twice, the next behind the one after it; and beside them come beginnings of them, and what nobody
    /// sent.
    Bad { passed: usize, late: Option<Vec<u8>> },
}

impl Road {
    pub(crate) fn bad() -> Self {
        Self::Bad { passed: 0, late: None }
    }

    /// What arrives when this is sent.
    pub(crate) fn carry(&mut self, datagram: &[u8]) -> Vec<Vec<u8>> {
        let Self::Bad { passed, late } = self else { return vec![datagram.to_vec()] };
        *passed += 1;
        let beginning = datagram[..datagram.len() / 2].to_vec();
        let mut arriving = vec![beginning, vec![0x16; *passed % 40], [&[0x99][..], &datagram[1..]].concat()];
        if *passed % 2 == 0 && late.is_none() {
            *late = Some(datagram.to_vec());
            return arriving;
        }
        arriving.extend([datagram.to_vec(), datagram.to_vec()]);
        arriving.extend(late.take());
        arriving
    }

    /// What is still on its way.
    pub(crate) fn late(&mut self) -> Option<Vec<u8>> {
        match self {
            Self::Good => None,
            Self::Bad { late, .. } => late.take(),
        }
    }
}
