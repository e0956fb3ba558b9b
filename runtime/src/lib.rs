//! The one seam to kernel, clock and chance, with a production and a simulated driver.
