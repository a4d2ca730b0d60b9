//! Images: the registry client, unpacking, layers, and root file systems made of them.
