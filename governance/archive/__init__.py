"""Retention tiers: days of warehouse tables that are past their limit move to cold storage in the lake.

`cold` says what cold storage holds, `policy` what is kept how long, `archive` moves
days out of the warehouse, `restore` brings one back. Which tables have a limit is
said by the dbt models and read by the caller.
"""
