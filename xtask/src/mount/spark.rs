//! Figures over time, in a line of text.

/// From low to high.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// At most `width` bars, from zero to the highest; each is the highest of the figures that fall on it.
pub(crate) fn line(figures: &[u64], width: usize) -> String {
    let top = figures.iter().copied().max().unwrap_or(0).max(1);
    let columns = width.min(figures.len());
    let bar = |n: usize| {
        let (from, to) = (n * figures.len() / columns, (n + 1) * figures.len() / columns);
        let highest = figures[from..to].iter().copied().max().unwrap_or(0);
        BARS[usize::try_from(highest * 7 / top).unwrap_or(0)]
    };
    (0..columns).map(bar).collect()
}

/// The middle figure of a quarter of them, 0 to 3.
pub(crate) fn median_of_quarter(figures: &[u64], quarter: usize) -> Option<u64> {
    let (from, to) = (figures.len() * quarter / 4, figures.len() * (quarter + 1) / 4);
    let mut part = figures.get(from..to)?.to_vec();
    part.sort_unstable();
    part.get(part.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_is_a_whole_bar_and_peaks_are_kept() {
        assert_eq!(line(&[0, 4, 8], 10), "▁▄█");
        assert_eq!(line(&[1, 1, 8, 1], 2), "▁█");
        assert_eq!(line(&[], 5), "");
        assert_eq!(line(&[0, 0], 5), "▁▁");
    }

    #[test]
    fn quarters_have_their_own_middle() {
        let figures = [9, 9, 1, 3, 5, 5, 7, 90];
        assert_eq!(median_of_quarter(&figures, 1), Some(3));
        assert_eq!(median_of_quarter(&figures, 3), Some(90));
        assert_eq!(median_of_quarter(&[1], 0), None);
    }
}
