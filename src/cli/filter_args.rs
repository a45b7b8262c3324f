//! The filter options, and their conversion to a checked [`Filter`].

use crate::filter::netmon_yaml::NetMonConfig;
use crate::filter::predicate::{self, Attribute, Net, PortRange, check_text, parse_number, parse_ports};
use crate::filter::{BinaryPattern, Filter, FilterOptions, ProcessFilter};
use crate::host;
use anyhow::{Context, Result, anyhow, bail};
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, FsType, NSFS_MAGIC, statfs};
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The filter options. Different options are ANDed; repeated values of one option are ORed.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Filters (evaluated in the kernel)")]
pub struct FilterArgs {
    /// Only processes of this executable: NAME, /full/path, or /prefix/ with a final slash
    #[arg(short, long, value_name = "X", value_parser = clap::value_parser!(OsString))]
    pub binary: Vec<OsString>,
    /// Only processes with this real user id
    #[arg(short, long, value_name = "N", value_delimiter = ',', value_parser = parse_number)]
    pub uid: Vec<u32>,
    /// Only processes with this effective user id
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = parse_number)]
    pub euid: Vec<u32>,
    /// Only processes with this login (audit) user id
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = parse_number)]
    pub auid: Vec<u32>,
    /// Only processes with this process id
    #[arg(short, long, value_name = "N", value_delimiter = ',', value_parser = parse_number)]
    pub pid: Vec<u32>,
    /// Invert --binary, --uid, --euid and --auid: report every process they do not match
    #[arg(long)]
    pub deny: bool,
    /// Only connections with this address at either end
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = Net::parse)]
    pub addr: Vec<Net>,
    /// Only connections with this local address
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = Net::parse)]
    pub saddr: Vec<Net>,
    /// Only connections with this remote address
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = Net::parse)]
    pub daddr: Vec<Net>,
    /// Only connections with this port at either end
    #[arg(long, value_name = "N|N-M", value_delimiter = ',', value_parser = parse_ports)]
    pub port: Vec<PortRange>,
    /// Only connections with this local port
    #[arg(long, value_name = "N|N-M", value_delimiter = ',', value_parser = parse_ports)]
    pub sport: Vec<PortRange>,
    /// Only connections with this remote port
    #[arg(long, value_name = "N|N-M", value_delimiter = ',', value_parser = parse_ports)]
    pub dport: Vec<PortRange>,
    /// Only IPv4, including IPv4-mapped addresses of IPv6 sockets
    #[arg(short = '4')]
    pub ipv4: bool,
    /// Only IPv6, without IPv4-mapped addresses
    #[arg(short = '6')]
    pub ipv6: bool,
    /// Only fail events: outgoing connections that failed
    #[arg(long)]
    pub failed: bool,
    /// Only processes in this container: its name, its id, or the first digits of the id
    #[arg(long, value_name = "NAME|ID", value_parser = parse_container)]
    pub container: Vec<String>,
    /// Only processes in this cgroup (of the cgroup2 tree) and below
    #[arg(long, value_name = "PATH")]
    pub cgroup: Vec<PathBuf>,
    /// Only connections in this network namespace: /proc/PID/ns/net, or a name from `ip netns`
    #[arg(long, value_name = "PATH")]
    pub netns: Vec<PathBuf>,
    /// Process filter and named rules from a NetMon YAML file
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A predicate: 'port_dst == 443 AND NOT daddr in ["10.0.0.0/8"]'; see FILTERS in tcptrace(8)
    #[arg(value_name = "FILTER")]
    pub predicate: Vec<String>,
}

impl FilterArgs {
    /// Resolves the arguments and reads the files they name. Every error is a usage error (exit status 2).
    ///
    /// `--failed` is not included: it selects events, not connections.
    pub fn filter(&self) -> Result<Filter> {
        let options = self.options()?;
        let predicate = predicate(&self.predicate)?;
        let config = match &self.config {
            Some(path) => read_config(path)?,
            None => NetMonConfig::default(),
        };
        let rules = config.rules();
        Ok(Filter::new(&options, predicate, config.process, rules))
    }

    fn options(&self) -> Result<FilterOptions> {
        let process = ProcessFilter {
            uid: self.uid.clone(),
            euid: self.euid.clone(),
            auid: self.auid.clone(),
            binary: self.binary.iter().map(|text| binary(text.as_bytes())).collect::<Result<_>>()?,
            deny: self.deny,
        };
        if self.deny && process.is_empty() {
            bail!(
                "--deny has nothing to deny; add --binary, --uid, --euid or --auid \
                 (for a pid, use FILTER: 'pid != 123')"
            );
        }
        let families = [(self.ipv4, 4), (self.ipv6, 6)];
        Ok(FilterOptions {
            process,
            pid: self.pid.clone(),
            addr: self.addr.clone(),
            saddr: self.saddr.clone(),
            daddr: self.daddr.clone(),
            port: self.port.clone(),
            sport: self.sport.clone(),
            dport: self.dport.clone(),
            family: families.into_iter().filter(|(wanted, _)| *wanted).map(|(_, family)| family).collect(),
            container: self.container.iter().map(|id| id.as_bytes().to_vec()).collect(),
            cgroup: self.cgroup.iter().map(|path| cgroup_id(path)).collect::<Result<_>>()?,
            netns: self.netns.iter().map(|path| netns_inode(path)).collect::<Result<_>>()?,
        })
    }
}

/// Joins the words with blanks, as tcpdump does: `tcptrace port_dst == 443` needs no quotes.
fn predicate(words: &[String]) -> Result<Option<predicate::Predicate>> {
    if words.is_empty() {
        return Ok(None);
    }
    let source = words.join(" ");
    // The shell removes double quotes that are not inside single quotes.
    let hint = match words.len() > 1 && !source.contains('"') {
        true => "\nquote the whole filter for the shell if it contains strings: 'binary_name == \"curl\"'",
        false => "",
    };
    predicate::parse(&source).map(Some).map_err(|e| anyhow!("FILTER, {}{hint}", e.report(&source)))
}

/// A NAME has no slash; a prefix ends in one.
fn binary(text: &[u8]) -> Result<BinaryPattern> {
    let (attribute, pattern): (_, fn(Vec<u8>) -> BinaryPattern) = match (text.contains(&b'/'), text.last()) {
        (false, _) => (Attribute::BinaryName, BinaryPattern::Name),
        (true, Some(b'/')) => (Attribute::BinaryPrefix, BinaryPattern::Prefix),
        (true, _) => (Attribute::BinaryPath, BinaryPattern::Path),
    };
    let shown = String::from_utf8_lossy(text);
    check_text(attribute, text).map_err(|message| anyhow!("--binary {shown}: {message}"))?;
    Ok(pattern(text.to_vec()))
}

fn parse_container(text: &str) -> Result<String, String> {
    check_text(Attribute::ContainerName, text.as_bytes()).map(|()| text.to_owned())
}

fn read_config(path: &Path) -> Result<NetMonConfig> {
    let name = path.to_string_lossy();
    let bytes =
        read_at_most(path, CONFIG_MAX).with_context(|| format!("cannot read the configuration {name}"))?;
    let text = String::from_utf8(bytes)
        .map_err(|e| anyhow!("{name} is not UTF-8 at byte {}", e.utf8_error().valid_up_to()))?;
    NetMonConfig::parse(&name, &text)
        .map_err(|e| anyhow!("{name}:{}:{}: {}", e.place.line, e.place.column, e.message))
}

/// Larger than any configuration whose values fit into a filter.
const CONFIG_MAX: u64 = 16 << 20;

/// Reads a file or a pipe, and fails if it has more than `limit` bytes.
fn read_at_most(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        bail!("it is larger than {} MB", limit >> 20);
    }
    Ok(bytes)
}

/// The id of a cgroup: the inode number of its directory.
fn cgroup_id(path: &Path) -> Result<u64> {
    let shown = path.display();
    // /proc/PID/cgroup and systemd-cgls show paths that begin at the root of the tree.
    let inside = host::cgroup2_root().map(|root| root.join(path.strip_prefix("/").unwrap_or(path)));
    let found: Vec<(PathBuf, FsType)> = std::iter::once(path.to_path_buf())
        .chain(inside)
        .filter_map(|path| statfs(&path).ok().map(|stat| (path, stat.filesystem_type())))
        .collect();
    if let Some((found, _)) = found.iter().find(|(_, kind)| *kind == CGROUP2_SUPER_MAGIC) {
        return Ok(std::fs::metadata(found).with_context(|| format!("--cgroup {shown}"))?.ino());
    }
    match found.first() {
        None => bail!("--cgroup {shown}: no such cgroup, neither as a path nor inside the cgroup2 tree"),
        Some((_, CGROUP_SUPER_MAGIC)) => bail!(
            "--cgroup {shown}: this is cgroup v1; only the cgroup2 tree can be filtered \
             (on hybrid hosts it is at /sys/fs/cgroup/unified)"
        ),
        Some(_) => {
            bail!("--cgroup {shown}: not in a cgroup2 file system, which is usually at /sys/fs/cgroup")
        }
    }
}

/// The inode number that identifies a network namespace.
fn netns_inode(path: &Path) -> Result<u32> {
    let is_name = path.components().count() == 1 && path.is_relative();
    let path = if is_name { Path::new("/run/netns").join(path) } else { path.to_path_buf() };
    let context = || format!("--netns {}", path.display());
    if statfs(&path).with_context(context)?.filesystem_type() != NSFS_MAGIC {
        bail!("{}: not a namespace file; use /proc/PID/ns/net or a name from `ip netns list`", context());
    }
    let inode = std::fs::metadata(&path).with_context(context)?.ino();
    u32::try_from(inode).with_context(context)
}
