//! Merging what plugins want of a container that is being created: each sees what those before it did, and no two set the same.

use std::collections::BTreeMap;

use crate::api::{
    Container, ContainerAdjustment, Field, Hooks, KeyValue, LinuxContainer, LinuxContainerAdjustment,
    LinuxDevice, LinuxNamespace, LinuxNetDevice, LinuxRdt, Mount, PosixRlimit,
};
use crate::changes::merge_resources;
use crate::error::Refusal;
use crate::owners::{Owners, marked, unmarked};

/// The container as the next plugin sees it, and all that was adjusted so far.
#[derive(Debug)]
pub(crate) struct Adjusting<'a> {
    pub(crate) container: &'a mut Container,
    pub(crate) adjust: &'a mut ContainerAdjustment,
    pub(crate) owners: &'a mut Owners,
    pub(crate) plugin: &'a str,
}

/// What a list names by a key, which marks a removal where it begins with `-`.
trait Entry: Clone {
    fn key(&self) -> &str;
    fn removal(key: &str) -> Self;
}

macro_rules! entry {
    ($type:ty, $key:ident) => {
        impl Entry for $type {
            fn key(&self) -> &str {
                &self.$key
            }
            fn removal(key: &str) -> $type {
                Self { $key: marked(key), ..Self::default() }
            }
        }
    };
}

entry!(Mount, destination);
entry!(LinuxDevice, path);
entry!(KeyValue, key);

impl Adjusting<'_> {
    /// Takes over what one plugin wants.
    ///
    /// # Errors
    /// It sets what another has set. Nothing of all this is of use then.
    pub(crate) fn take(&mut self, wanted: ContainerAdjustment) -> Result<(), Refusal> {
        self.annotations(wanted.annotations)?;
        self.mounts(wanted.mounts)?;
        self.environment(wanted.env)?;
        self.arguments(wanted.args)?;
        self.hooks(wanted.hooks.unwrap_or_default());
        self.rlimits(wanted.rlimits)?;
        for device in wanted.cdi_devices {
            self.claim(Field::CdiDevices, Some(&device.name))?;
            self.adjust.cdi_devices.push(device);
        }
        self.linux(wanted.linux.unwrap_or_default())
    }

    fn claim(&mut self, field: Field, key: Option<&str>) -> Result<(), Refusal> {
        self.owners.claim(&self.container.id, field, key, self.plugin)
    }

    fn annotations(&mut self, wanted: BTreeMap<String, String>) -> Result<(), Refusal> {
        let mut merged = std::mem::take(&mut self.adjust.annotations);
        let mut seen = std::mem::take(&mut self.container.annotations);
        self.map(Field::Annotations, wanted, &mut merged, &mut seen)?;
        (self.adjust.annotations, self.container.annotations) = (merged, seen);
        Ok(())
    }

    /// A map whose keys may be marked for removal.
    fn map<V: Clone + Default>(
        &mut self,
        field: Field,
        wanted: BTreeMap<String, V>,
        merged: &mut BTreeMap<String, V>,
        seen: &mut BTreeMap<String, V>,
    ) -> Result<(), Refusal> {
        for key in wanted.keys().filter_map(|key| key.strip_prefix('-')) {
            if merged.remove(key).is_some() {
                self.owners.clear(&self.container.id, field, Some(key), self.plugin);
            }
            seen.remove(key);
            merged.insert(marked(key), V::default());
        }
        for (key, value) in wanted.into_iter().filter(|(key, _)| !unmarked(key).1) {
            self.claim(field, Some(&key))?;
            merged.remove(&marked(&key));
            seen.insert(key.clone(), value.clone());
            merged.insert(key, value);
        }
        Ok(())
    }

    /// A list whose entries' keys may be marked for removal.
    fn list<T: Entry>(
        &mut self,
        field: Field,
        wanted: Vec<T>,
        merged: &mut Vec<T>,
        seen: &mut Vec<T>,
    ) -> Result<(), Refusal> {
        let (removed, added): (Vec<T>, Vec<T>) =
            wanted.into_iter().partition(|entry| unmarked(entry.key()).1);
        for key in removed.iter().map(|entry| unmarked(entry.key()).0) {
            let before = merged.len();
            merged.retain(|entry| entry.key() != key);
            if merged.len() < before {
                self.owners.clear(&self.container.id, field, Some(key), self.plugin);
            }
            merged.retain(|entry| entry.key().strip_prefix('-') != Some(key));
            merged.push(T::removal(key));
            seen.retain(|entry| entry.key() != key);
        }
        for entry in added {
            self.claim(field, Some(entry.key()))?;
            merged.retain(|known| known.key().strip_prefix('-') != Some(entry.key()));
            merged.push(entry.clone());
            seen.retain(|known| known.key() != entry.key());
            seen.push(entry);
        }
        Ok(())
    }

    fn mounts(&mut self, wanted: Vec<Mount>) -> Result<(), Refusal> {
        let mut merged = std::mem::take(&mut self.adjust.mounts);
        let mut seen = std::mem::take(&mut self.container.mounts);
        self.list(Field::Mounts, wanted, &mut merged, &mut seen)?;
        (self.adjust.mounts, self.container.mounts) = (merged, seen);
        Ok(())
    }

    /// Adjustments have names and values; what plugins see has the lines of an environment.
    fn environment(&mut self, wanted: Vec<KeyValue>) -> Result<(), Refusal> {
        if wanted.is_empty() {
            return Ok(());
        }
        let mut merged = std::mem::take(&mut self.adjust.env);
        let named = |line: &String| {
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            KeyValue { key: key.into(), value: value.into() }
        };
        let mut seen = self.container.env.iter().map(named).collect();
        self.list(Field::Env, wanted, &mut merged, &mut seen)?;
        self.container.env = seen.iter().map(|entry| format!("{}={}", entry.key, entry.value)).collect();
        self.adjust.env = merged;
        Ok(())
    }

    fn devices(&mut self, wanted: Vec<LinuxDevice>) -> Result<(), Refusal> {
        if wanted.is_empty() {
            return Ok(());
        }
        let mut merged = std::mem::take(&mut linux_of(self.adjust).devices);
        let mut seen = std::mem::take(&mut linux_in(self.container).devices);
        self.list(Field::Devices, wanted, &mut merged, &mut seen)?;
        linux_of(self.adjust).devices = merged;
        linux_in(self.container).devices = seen;
        Ok(())
    }

    fn arguments(&mut self, mut wanted: Vec<String>) -> Result<(), Refusal> {
        let Some(first) = wanted.first() else { return Ok(()) };
        // An empty first argument says that somebody else's are to be replaced.
        if first.is_empty() {
            wanted.remove(0);
            self.owners.clear(&self.container.id, Field::Args, None, self.plugin);
        }
        self.claim(Field::Args, None)?;
        self.container.args.clone_from(&wanted);
        self.adjust.args = wanted;
        Ok(())
    }

    fn hooks(&mut self, wanted: Hooks) {
        if wanted == Hooks::default() {
            return;
        }
        for into in [&mut self.adjust.hooks, &mut self.container.hooks] {
            let into = into.get_or_insert_default();
            into.prestart.extend(wanted.prestart.iter().cloned());
            into.create_runtime.extend(wanted.create_runtime.iter().cloned());
            into.create_container.extend(wanted.create_container.iter().cloned());
            into.start_container.extend(wanted.start_container.iter().cloned());
            into.poststart.extend(wanted.poststart.iter().cloned());
            into.poststop.extend(wanted.poststop.iter().cloned());
        }
        self.owners.join(&self.container.id, Field::OciHooks, self.plugin);
    }

    fn rlimits(&mut self, wanted: Vec<PosixRlimit>) -> Result<(), Refusal> {
        for limit in wanted {
            self.claim(Field::Rlimits, Some(&limit.r#type))?;
            self.container.rlimits.retain(|known| known.r#type != limit.r#type);
            self.container.rlimits.push(limit.clone());
            self.adjust.rlimits.push(limit);
        }
        Ok(())
    }

    fn linux(&mut self, wanted: LinuxContainerAdjustment) -> Result<(), Refusal> {
        self.devices(wanted.devices)?;
        if let Some(resources) = wanted.resources {
            let (owners, plugin, id) = (&mut *self.owners, self.plugin, self.container.id.clone());
            let seen = linux_in(self.container).resources.get_or_insert_default();
            let all = linux_of(self.adjust).resources.get_or_insert_default();
            merge_resources(&resources, &mut [seen, all], |field, key| {
                owners.claim(&id, field, key, plugin)
            })?;
        }
        if !wanted.cgroups_path.is_empty() {
            self.claim(Field::CgroupsPath, None)?;
            linux_in(self.container).cgroups_path.clone_from(&wanted.cgroups_path);
            linux_of(self.adjust).cgroups_path = wanted.cgroups_path;
        }
        macro_rules! whole {
            ($($name:ident = $field:ident),*) => { $(
                if let Some(value) = wanted.$name {
                    self.claim(Field::$field, None)?;
                    linux_in(self.container).$name = Some(value.clone());
                    linux_of(self.adjust).$name = Some(value);
                }
            )* };
        }
        whole!(
            oom_score_adj = OomScoreAdj,
            io_priority = IoPriority,
            seccomp_policy = SeccompPolicy,
            scheduler = LinuxSched
        );
        if let Some(policy) = wanted.memory_policy {
            self.claim(Field::MemoryPolicy, None)?;
            linux_of(self.adjust).memory_policy = Some(policy);
        }
        self.namespaces(wanted.namespaces)?;
        self.sysctls(wanted.sysctl)?;
        self.net_devices(wanted.net_devices)?;
        wanted.rdt.map_or(Ok(()), |rdt| self.rdt(rdt))
    }

    fn namespaces(&mut self, wanted: Vec<LinuxNamespace>) -> Result<(), Refusal> {
        for namespace in wanted {
            let (kind, removed) = unmarked(&namespace.r#type);
            self.claim(Field::Namespace, Some(kind))?;
            let seen = &mut linux_in(self.container).namespaces;
            seen.retain(|known| known.r#type != kind);
            if !removed {
                seen.push(namespace.clone());
            }
            linux_of(self.adjust).namespaces.push(namespace);
        }
        Ok(())
    }

    fn sysctls(&mut self, wanted: BTreeMap<String, String>) -> Result<(), Refusal> {
        if wanted.is_empty() {
            return Ok(());
        }
        let mut merged = std::mem::take(&mut linux_of(self.adjust).sysctl);
        let mut seen = std::mem::take(&mut linux_in(self.container).sysctl);
        self.map(Field::Sysctl, wanted, &mut merged, &mut seen)?;
        linux_of(self.adjust).sysctl = merged;
        linux_in(self.container).sysctl = seen;
        Ok(())
    }

    fn net_devices(&mut self, wanted: BTreeMap<String, LinuxNetDevice>) -> Result<(), Refusal> {
        if wanted.is_empty() {
            return Ok(());
        }
        let mut merged = std::mem::take(&mut linux_of(self.adjust).net_devices);
        let mut seen = std::mem::take(&mut linux_in(self.container).net_devices);
        self.map(Field::LinuxNetDevices, wanted, &mut merged, &mut seen)?;
        linux_of(self.adjust).net_devices = merged;
        linux_in(self.container).net_devices = seen;
        Ok(())
    }

    fn rdt(&mut self, wanted: LinuxRdt) -> Result<(), Refusal> {
        if wanted.remove {
            for field in [Field::RdtClosId, Field::RdtSchemata, Field::RdtEnableMonitoring] {
                self.owners.clear(&self.container.id, field, None, self.plugin);
            }
            linux_of(self.adjust).rdt = Some(LinuxRdt { remove: true, ..LinuxRdt::default() });
        }
        macro_rules! part {
            ($($name:ident = $field:ident),*) => { $(
                if let Some(value) = wanted.$name {
                    self.claim(Field::$field, None)?;
                    let rdt = linux_of(self.adjust).rdt.get_or_insert_default();
                    (rdt.$name, rdt.remove) = (Some(value), false);
                }
            )* };
        }
        part!(clos_id = RdtClosId, schemata = RdtSchemata, enable_monitoring = RdtEnableMonitoring);
        Ok(())
    }
}

fn linux_of(adjust: &mut ContainerAdjustment) -> &mut LinuxContainerAdjustment {
    adjust.linux.get_or_insert_default()
}

fn linux_in(container: &mut Container) -> &mut LinuxContainer {
    container.linux.get_or_insert_default()
}

#[cfg(test)]
mod tests;
