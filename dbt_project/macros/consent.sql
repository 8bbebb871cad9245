{# Purposes of consent that are channels of messages. #}
{% macro message_channels() -%}
    {{ return(['push', 'sms', 'email']) }}
{%- endmacro %}
