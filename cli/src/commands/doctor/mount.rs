//! Which file system a path lies on, as `/proc/self/mountinfo` tells it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A mounted file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Major and minor number of its device: `254:0`.
    pub device: String,
    /// `ext4`
    pub kind: String,
    /// What was mounted: `/dev/vda`.
    pub source: String,
    /// Options of the mount and of the file system: `rw,relatime,rw,discard`.
    pub options: String,
}

/// The file system below the absolute `path`: the deepest mount point on the way to it, and the latest there.
pub fn mount_of(mountinfo: &str, path: &Path) -> Option<Mount> {
    let mounts = mountinfo.lines().filter_map(mount_of_line);
    let on_the_way = mounts.filter(|(point, _)| path.starts_with(point));
    on_the_way.max_by_key(|(point, _)| point.components().count()).map(|(_, mount)| mount)
}

/// `27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard`, with any number of fields before the dash.
fn mount_of_line(line: &str) -> Option<(PathBuf, Mount)> {
    let (place, what) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(2);
    let (device, _root, point, mount_options) = (place.next()?, place.next()?, place.next()?, place.next()?);
    let mut what = what.split(' ');
    let (kind, source, options) = (what.next()?, what.next()?, what.next()?);
    let mount = Mount {
        device: device.to_owned(),
        kind: kind.to_owned(),
        source: unescaped(source).display().to_string(),
        options: format!("{mount_options},{options}"),
    };
    Some((unescaped(point), mount))
}

/// The kernel writes a blank, a tab, a line feed and a backslash as `\040` and so on.
fn unescaped(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, others)) = rest.split_first() {
        let octal = others.get(..3).filter(|_| first == b'\\');
        let byte = octal.and_then(|octal| u8::from_str_radix(std::str::from_utf8(octal).ok()?, 8).ok());
        bytes.push(byte.unwrap_or(first));
        rest = &others[if byte.is_some() { 3 } else { 0 }..];
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
22 27 0:21 / /proc rw,relatime - proc proc rw\n\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n\
40 27 259:1 / /mnt/a\\040b rw shared:3 master:1 - xfs /dev/nvme0n1p1 rw,attr2\n\
41 27 0:50 / /mnt/over rw - tmpfs tmpfs rw\n\
42 27 259:2 / /mnt/over rw - ext4 /dev/sdb2 rw,nobarrier\n";

    fn found(path: &str) -> (String, String) {
        let mount = mount_of(MOUNTINFO, Path::new(path)).unwrap();
        (mount.device, mount.kind)
    }

    fn pair(device: &str, kind: &str) -> (String, String) {
        (device.to_owned(), kind.to_owned())
    }

    #[test]
    fn the_deepest_and_latest_mount_counts() {
        assert_eq!(found("/"), pair("254:0", "ext4"));
        assert_eq!(found("/mnt/a"), pair("254:0", "ext4"));
        assert_eq!(found("/mnt/a b/data"), pair("259:1", "xfs"));
        assert_eq!(found("/mnt/over"), pair("259:2", "ext4"));
        assert_eq!(found("/mnt/overt"), pair("254:0", "ext4"));
    }

    #[test]
    fn options_of_both_kinds_are_told() {
        let mount = mount_of(MOUNTINFO, Path::new("/mnt/over")).unwrap();
        assert_eq!((mount.source.as_str(), mount.options.as_str()), ("/dev/sdb2", "rw,rw,nobarrier"));
        assert_eq!(mount_of("nonsense\n1 2 3 - 4\n", Path::new("/")), None);
    }

    #[test]
    fn only_what_is_octal_is_unescaped() {
        assert_eq!(unescaped("a\\040b\\134"), Path::new("a b\\"));
        assert_eq!(unescaped("a\\9\\0"), Path::new("a\\9\\0"));
        assert_eq!(unescaped("é\\011"), Path::new("é\t"));
    }
}
