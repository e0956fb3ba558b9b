//! How unequally keys are used, as one number.

/// The most that is told: beyond it all but a few keys are as good as unused.
pub const EXPONENT_MAX: f64 = 4.0;

/// The exponent under which these counts, in falling order, are the likeliest: the n-th key is used as often as 1 / n
/// to that power; 0 is all alike. With few records for each key chance looks like skew.
pub fn exponent(counts: &[u64]) -> f64 {
    let records: f64 = counts.iter().map(|count| *count as f64).sum();
    if counts.len() < 2 {
        return 0.0;
    }
    // The likelihood has its summit where the mean of ln(rank) is the expected one, which falls as the exponent rises.
    let logs: Vec<f64> = (1..=counts.len()).map(|rank| (rank as f64).ln()).collect();
    let found = logs.iter().zip(counts).map(|(log, count)| log * *count as f64).sum::<f64>() / records;
    let (mut low, mut high) = (0.0, EXPONENT_MAX);
    for _ in 0..24 {
        let middle = (low + high) / 2.0;
        if expected(&logs, middle) > found { low = middle } else { high = middle }
    }
    (low + high) / 2.0
}

/// The mean of ln(rank) under an exponent.
fn expected(logs: &[f64], exponent: f64) -> f64 {
    let (mut sum, mut weights) = (0.0, 0.0);
    for log in logs {
        let weight = (-exponent * log).exp();
        sum += weight * log;
        weights += weight;
    }
    sum / weights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponent_that_made_the_counts_is_found() {
        for made in [0.5, 0.99, 1.5] {
            let counts: Vec<u64> =
                (1..=10_000_u32).map(|rank| (1e7 * f64::from(rank).powf(-made)) as u64).collect();
            let found = exponent(&counts);
            assert!((found - made).abs() < 0.02, "{found} for {made}");
        }
    }

    #[test]
    fn equal_counts_have_none() {
        assert!(exponent(&[7; 1_000]) < 1e-6);
        assert_eq!((exponent(&[5]), exponent(&[])), (0.0, 0.0));
        assert!(exponent(&[1_000_000, 1]) > 3.9);
    }
}
