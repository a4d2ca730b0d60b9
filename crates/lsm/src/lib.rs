//! The kernel's security modules that name what confines a process: AppArmor's profiles and SELinux's labels.

pub mod apparmor;
pub mod selinux;
