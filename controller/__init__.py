"""usersync keeps Clerk users and Supabase (PostgreSQL) data in step.

The layers, from the outside in, each importing only what stands to its right::

    cli > reconciler | web > runtime > kube | clerk | postgres | emulator | ops > settings > core > errors
"""
