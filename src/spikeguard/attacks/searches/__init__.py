"""Search strategies of attacks, one per module, with the code they share."""
