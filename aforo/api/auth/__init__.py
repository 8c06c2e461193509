"""Who calls, and from where: sessions, single sign-on, and the routes under `/auth`."""
