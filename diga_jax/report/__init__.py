"""Results for people: tables, pictures, charts, studies over seeds."""
